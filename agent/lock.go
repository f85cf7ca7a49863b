package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockSocket is an abstract socket: it belongs to a network namespace, and is gone
// with the process that has it.
const lockSocket = "@headgate-agent"

// errRunning says that an agent is at work.
var errRunning = errors.New("an agent is running")

// lockPatience is how long a lock may outlive who had it: a process that it was just
// starting has what it had open until it executes its program.
const lockPatience = 2 * time.Second

// deadPatience is how long it may, if who had it is known to have ended: on a busy
// machine such a process may have to wait for a processor.
const deadPatience = 30 * time.Second

// lock sees to it that an agent is alone with its directories and with its network
// namespace: devices, routing rules and the gate are of the namespace.
func lock(runDir, stateDir string) (unlock func(), err error) {
	return waitLock(lockSocket, runDir, stateDir)
}

func waitLock(socket, runDir, stateDir string) (unlock func(), err error) {
	for began := time.Now(); ; time.Sleep(lockPatience / 40) {
		waited := time.Since(began) // before the last try
		unlock, err = tryLock(socket, runDir, stateDir)
		if !errors.Is(err, errRunning) || waited > deadPatience || waited > lockPatience && !ownerEnded(socket) {
			return unlock, err
		}
	}
}

// ownerEnded reports whether the process that made a lock is no more.
func ownerEnded(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return true // let go of just now
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	_ = raw.Control(func(fd uintptr) {
		owner, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		ended = err == nil && owner.Pid > 0 && errors.Is(unix.Kill(int(owner.Pid), 0), unix.ESRCH)
	})
	return ended
}

func tryLock(socket, runDir, stateDir string) (unlock func(), err error) {
	var held []interface{ Close() error }
	unlock = func() {
		for _, h := range held {
			h.Close()
		}
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("%w in this network namespace: stop it first; a second one needs a namespace of its own", errRunning)
		}
		return nil, fmt.Errorf("lock the network namespace: %w", err)
	}
	held = append(held, l)
	for _, dir := range []string{runDir, stateDir} {
		f, err := lockDir(dir)
		if err != nil {
			unlock()
			return nil, err
		}
		if f != nil {
			held = append(held, f)
		}
	}
	return unlock, nil
}

// lockDir locks a directory; one that is not there needs no lock.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "agent.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w with %s: stop it, or use other directories with --run-dir and --state-dir", errRunning, dir)
	}
	return f, nil
}

// namespaceID tells network namespaces apart.
func namespaceID() (uint64, error) { return inode("/proc/self/ns/net") }

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", path, err)
	}
	return st.Ino, nil
}

// namespaceLives reports whether a network namespace still has a process or a name.
func namespaceLives(id uint64) bool {
	for _, pattern := range []string{"/run/netns/*", "/proc/[0-9]*/ns/net"} {
		paths, _ := filepath.Glob(pattern)
		for _, p := range paths {
			if n, err := inode(p); err == nil && n == id {
				return true
			}
		}
	}
	return false
}
