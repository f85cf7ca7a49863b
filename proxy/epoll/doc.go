// Package epoll carries sockets in event loops, for a program whose work at a socket
// mostly ends without waiting.
//
// A goroutine at each socket costs, for every message, a read that finds nothing, two
// words with the scheduler, and a stack while nothing happens. Here a socket whose
// reader has nothing to do is parked: the loop calls it when there is something to read,
// and what it then does at once needs no goroutine. What has to wait after all starts
// one, which reads and writes the same socket as if it blocked.
//
// Sockets are looked at level-triggered. One that is ready and that nobody waits for is
// taken out until somebody does, so no event is lost and none repeats for ever. A
// descriptor is closed when its last user is done with it, never under a system call.
//
// Loops poll by raw system calls, which the scheduler does not hear of, and block, by
// ordinary ones, only when nothing is ready and no other goroutine wants the processor.
package epoll
