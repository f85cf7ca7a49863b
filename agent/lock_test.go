package agent

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestLockOutlivesItsOwner has the lock held for a moment longer, as by a process that
// an agent was starting when it was killed.
func TestLockOutlivesItsOwner(t *testing.T) {
	socket := "@" + t.TempDir()
	unlock, err := tryLock(socket, t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLock(socket, t.TempDir(), t.TempDir()); !errors.Is(err, errRunning) {
		t.Fatalf("a second lock: %v", err)
	}
	if ownerEnded(socket) {
		t.Error("we have not ended")
	}
	time.AfterFunc(lockPatience/10, unlock)
	unlock, err = waitLock(socket, t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatalf("the lock was let go and not taken: %v", err)
	}
	unlock()
}

// TestLockOfTheDead has a lock held on by a process that was started by one that has
// ended: that is waited for longer than for one that is at work.
func TestLockOfTheDead(t *testing.T) {
	socket := "@" + t.TempDir()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	owner := exec.Command("/proc/self/exe", "-test.run", "^TestLockOwner$")
	owner.Env = append(os.Environ(), "HEADGATE_TEST_LOCK="+socket)
	owner.Stdin = out
	if text, err := owner.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	out.Close()
	if _, err := tryLock(socket, t.TempDir(), t.TempDir()); !errors.Is(err, errRunning) {
		t.Fatalf("the lock is not held on: %v", err)
	}
	if !ownerEnded(socket) {
		t.Error("who had the lock has ended")
	}
	time.AfterFunc(lockPatience+lockPatience/4, func() { in.Close() })
	unlock, err := waitLock(socket, t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// TestLockOwner is a process that ends with its lock held by another.
func TestLockOwner(t *testing.T) {
	socket := os.Getenv("HEADGATE_TEST_LOCK")
	if socket == "" {
		return
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	keeper := exec.Command("cat") // until its input ends
	keeper.Stdin = os.Stdin
	keeper.ExtraFiles = []*os.File{file}
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
}
