package redirect

import (
	"errors"
	"net"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// attachAs opens a queue as somebody without capabilities who may open /dev/net/tun.
func attachAs(t *testing.T, uid int) (fd int, err error) {
	t.Helper()
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	r, err := unix.NewIfreq(InjectorDevice)
	if err != nil {
		t.Fatal(err)
	}
	r.SetUint16(injectorMode)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- errno
			return
		}
		done <- unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}()
	return fd, <-done
}

// Nobody without privilege writes to the device, nor did before it was guarded; and nobody at
// all before the gate is there.
func TestInjectorIsNobodyElses(t *testing.T) {
	inNamespace(t)
	open, err := openQueue()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(open.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		t.Fatal(err)
	}
	_ = open.Close()
	before, err := net.InterfaceByName(InjectorDevice)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := attachAs(t, 65534)
	if err != nil {
		t.Fatal("a device without an owner is not open to all, so this test tells nothing:", err)
	}
	index, err := EnsureInjector()
	if err != nil {
		t.Fatal(err)
	}
	if now, err := net.InterfaceByIndex(index); err != nil || now.Name != InjectorDevice || now.Flags&net.FlagUp != 0 {
		t.Errorf("it is %+v, %v, want it down", now, err)
	}
	if err := RaiseInjector(); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(theirs, make([]byte, 64)); err == nil {
		t.Errorf("who had a queue of the old device (%d) writes to the new one (%d)", before.Index, index)
	}
	if _, err := attachAs(t, 65534); !errors.Is(err, unix.EPERM) {
		t.Errorf("somebody attached to it: %v, want EPERM", err)
	}
	if again, err := EnsureInjector(); err != nil || again != index {
		t.Errorf("it is made anew: %d, then %d, %v", index, again, err)
	}
	queue, err := OpenInjector()
	if err != nil {
		t.Fatal(err)
	}
	defer queue.Close()
	if _, err := unix.Write(int(queue.Fd()), make([]byte, 64)); err != nil {
		t.Error("who may does not write:", err)
	}
}
