package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var errNamespaceGone = errors.New("the network namespace is gone")

// namespace is a network namespace. It is held by a thread of this process and by
// nothing else, so that it cannot outlive the process, and what must happen in it
// happens on that thread.
type namespace struct {
	path  string // by which others open it
	inode uint64
	born  []string // interfaces that the kernel gave it: the loopback device, and tunnels where it knows any
	calls chan func()
	quit  chan struct{}
	gone  chan struct{}
}

func openNamespace() (*namespace, error) {
	n := &namespace{calls: make(chan func()), quit: make(chan struct{}), gone: make(chan struct{})}
	ready := make(chan error, 1)
	go func() {
		defer close(n.gone)
		runtime.LockOSThread() // never unlocked, so that the thread ends with us
		err := n.enter()
		ready <- err
		for err == nil {
			select {
			case f := <-n.calls:
				f()
			case <-n.quit:
				return
			}
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return n, nil
}

func (n *namespace) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	n.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	var st unix.Stat_t
	if err := unix.Stat(n.path, &st); err != nil {
		return fmt.Errorf("open the network namespace: %w", err)
	}
	n.inode = st.Ino
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring the loopback device up: %w", err)
	}
	links, err := netlink.LinkList()
	for _, l := range links {
		n.born = append(n.born, l.Attrs().Name)
	}
	return err
}

// close lets go of the namespace. It is gone once no process and no socket is in
// it either.
func (n *namespace) close() {
	select {
	case <-n.quit:
	default:
		close(n.quit)
	}
	<-n.gone
}

// do runs f in the namespace. What f starts or opens stays there.
func (n *namespace) do(f func() error) error {
	result := make(chan error, 1)
	select {
	case n.calls <- func() { result <- f() }:
		return <-result
	case <-n.gone:
		return errNamespaceGone
	}
}

// newNamespace is for a test that has no use for one that fails.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n, err := openNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n
}

// child is a process that a test started.
type child struct {
	*exec.Cmd
	done chan struct{}
	err  error // once done
}

// start starts a process in the namespace. It ends with the namespace's thread at
// the latest.
func (n *namespace) start(cmd *exec.Cmd) (*child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := n.do(cmd.Start); err != nil {
		return nil, err
	}
	c := &child{Cmd: cmd, done: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// end sends a signal and waits for the end; a process that takes too long is
// killed, and false returned.
func (c *child) end(s syscall.Signal, within time.Duration) bool {
	_ = c.Process.Signal(s)
	select {
	case <-c.done:
		return true
	case <-time.After(within):
	}
	_ = c.Process.Kill()
	<-c.done
	return false
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}
