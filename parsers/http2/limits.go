package http2

// Limits bound what one connection may cost. A field that is zero has its
// default.
type Limits struct {
	Early         int   // bytes that the client may send before the server's SETTINGS: 128 KiB
	Head          int   // bytes of a header block, encoded or decoded, of either side: 64 KiB
	Fields        int   // in a header block: 100
	Continuations int   // frames that a header block is continued in: 32
	Streams       int   // open at once: 1024
	Resets        int   // streams given up before their answer, more than such as ran their course: 500
	Noise         int   // frames that further no stream, see Session.noise: 10,000
	Unanswered    int   // PING, and SETTINGS, that the other side has not acknowledged: 1000
	Settings      int   // parameters in a SETTINGS frame: 64
	Table         int   // bytes of an HPACK table: 64 KiB
	Denied        int64 // bytes of the body of a denied request that are read: 1 MiB
	Kept          int   // bytes kept of open requests, to judge them again: 256 KiB
}

func (l Limits) withDefaults() Limits {
	set := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	set(&l.Early, 128<<10)
	set(&l.Head, 64<<10)
	set(&l.Fields, 100)
	set(&l.Continuations, 32)
	set(&l.Streams, 1024)
	set(&l.Resets, 500)
	set(&l.Noise, 10_000)
	set(&l.Unanswered, 1000)
	set(&l.Settings, 64)
	set(&l.Table, 64<<10)
	set(&l.Kept, 256<<10)
	if l.Denied <= 0 {
		l.Denied = 1 << 20
	}
	return l
}
