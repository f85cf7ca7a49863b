package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/redirect"
)

// fileLimit is how many descriptors the process may have: two for each
// connection, and pipes.
const fileLimit = 1 << 18

// child is a proxy that this agent started. Nil: it was adopted.
type child struct {
	process *os.Process
	done    chan struct{}
	err     error // how it ended, once done is closed
}

func (c *child) exited() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.done
}

func (c *child) kill() {
	if c != nil {
		_ = c.process.Kill()
	}
}

// start starts a proxy, waits until it answers and puts its socket in place.
func (b *Backend) start(ctx context.Context, keepOld bool) (*link, *child, error) {
	listener, path, err := listenAt(b.config.RunDir)
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close() // our copy: the proxy has one
	socket, err := listener.File()
	if err != nil {
		return nil, nil, fmt.Errorf("hand over API socket: %w", err)
	}
	defer socket.Close()
	c, err := b.spawn(socket)
	if err != nil {
		_ = os.Remove(path)
		return nil, nil, err
	}
	// With our copies closed, the end of the child ends connections to its socket.
	_ = socket.Close()
	_ = listener.Close()
	l, err := c.greet(ctx, path, b.config.Version)
	if err == nil {
		err = install(b.config.RunDir, path, keepOld)
	}
	if err != nil {
		c.kill()
		if l != nil {
			l.close()
		}
		_ = os.Remove(path)
		return nil, nil, err
	}
	return l, c, nil
}

// greet waits for the first answer.
func (c *child) greet(ctx context.Context, path, version string) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-c.done:
			cancel()
		case <-stop:
		}
	}()
	l, err := connect(ctx, path, version)
	if err != nil {
		select {
		case <-c.done:
			return nil, fmt.Errorf("start proxy: it ended (%w), see %s", c.err, logName)
		default:
			return nil, fmt.Errorf("start proxy: %w", err)
		}
	}
	return l, nil
}

// spawn starts the process: in a session of its own, so that it outlives us, as
// a user without rights, with the two capabilities that transparent sockets need.
func (b *Backend) spawn(socket *os.File) (*child, error) {
	log, err := os.OpenFile(filepath.Join(b.config.RunDir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	defer log.Close()
	cmd := &exec.Cmd{
		Path: b.config.Executable, Args: b.config.Arguments, Env: b.config.Environment, Dir: "/",
		Stdout: log, Stderr: log,
		ExtraFiles:  append([]*os.File{socket}, b.config.MapFiles...),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if !b.config.KeepUser {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: b.config.UID, Gid: b.config.GID, Groups: []uint32{}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE}
	}
	senders, err := b.addSenders(cmd)
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	defer senders()
	if err := startConfined(cmd); err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	limit := unix.Rlimit{Cur: fileLimit, Max: fileLimit}
	if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		b.log.Debug("raise the proxy's file limit", "error", err)
	}
	c := &child{process: cmd.Process, done: make(chan struct{})}
	go func() {
		if c.err = cmd.Wait(); c.err == nil {
			c.err = errors.New("exit status 0")
		}
		close(c.done)
	}()
	return c, nil
}

// startConfined starts a process that can never gain privileges, its threads and its
// children included: it inherits that from the thread that starts it, which ends with it.
func startConfined(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: no other goroutine gets this thread
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			started <- fmt.Errorf("give up new privileges: %w", err)
			return
		}
		started <- cmd.Start()
	}()
	return <-started
}

// addSenders gives the process the sockets that it sends datagrams by, which it could not
// open itself, and returns what closes our copies. Without privilege there are none.
func (b *Backend) addSenders(cmd *exec.Cmd) (done func(), err error) {
	senders, err := redirect.OpenSenders()
	switch {
	case errors.Is(err, unix.EPERM) && b.config.KeepUser:
		return func() {}, nil
	case err != nil:
		return nil, err
	}
	const first = 3 // of ExtraFiles
	for len(cmd.ExtraFiles)+first < DescriptorSender4 {
		cmd.ExtraFiles = append(cmd.ExtraFiles, nil)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, senders[:]...)
	injector, err := redirect.OpenInjector()
	if err == nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, injector)
	} else {
		b.log.Debug("datagrams of the proxy go by the host's stack", "reason", err)
	}
	return func() {
		_ = injector.Close()
		for _, f := range senders {
			_ = f.Close()
		}
	}, nil
}

// listens reports whether somebody listens on a unix socket.
func listens(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, os.ErrNotExist)
}
