package proxy

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// Under load a worker lets datagrams gather, for to be woken for each few costs as much as
	// they do: after a turn of at least gatherFrom, that began at most gatherWithin after the
	// last, it sleeps for gatherFor.
	gatherFrom, gatherEnough = 4, 32
	gatherWithin             = 400 * time.Microsecond
	gatherFor                = 150 * time.Microsecond
)

func (w *dnsWorker) gather(n int) {
	gap := w.now.Sub(w.before)
	w.before = w.now
	if n < gatherFrom || n >= gatherEnough || gap > gatherWithin {
		return
	}
	t := unix.NsecToTimespec(int64(gatherFor))
	// Not a raw call: where there is other work, Go's scheduler gives it this thread's place.
	_, _, _ = syscall.Syscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}
