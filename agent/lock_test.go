package agent

import (
	"errors"
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
	time.AfterFunc(lockPatience/10, unlock)
	unlock, err = waitLock(socket, t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatalf("the lock was let go and not taken: %v", err)
	}
	unlock()
}
