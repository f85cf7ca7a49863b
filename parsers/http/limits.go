package http

import "time"

// Limits bound what one connection may cost. A field that is zero has its
// default.
type Limits struct {
	RequestLine int   // bytes of a request line with its CRLF: 16 KiB
	Head        int   // bytes of a head, of either side: 64 KiB
	Headers     int   // fields of a request head, of a trailer section: 100
	ChunkLine   int   // bytes of a chunk size with its extensions: 1 KiB
	Trailers    int   // bytes of a trailer section: 8 KiB
	Pipelined   int   // requests without a complete answer: 1024
	DeniedBody  int64 // bytes of a denied request's body that are read: 1 MiB
	// Begin is how long the head of a chunked request waits for its body: 500 ms. A
	// client that says no more for as long may be waiting for the server.
	Begin time.Duration
}

func (l Limits) withDefaults() Limits {
	set := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	set(&l.RequestLine, 16<<10)
	set(&l.Head, 64<<10)
	set(&l.Headers, 100)
	set(&l.ChunkLine, 1<<10)
	set(&l.Trailers, 8<<10)
	set(&l.Pipelined, 1024)
	if l.DeniedBody <= 0 {
		l.DeniedBody = 1 << 20
	}
	if l.Begin <= 0 {
		l.Begin = 500 * time.Millisecond
	}
	return l
}
