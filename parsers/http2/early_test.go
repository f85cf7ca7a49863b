package http2

import (
	"testing"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
)

// early is a client that does not wait for the server's SETTINGS.
func early(write func(w *wire)) string {
	w := newWire()
	_, _ = w.WriteString(Preface)
	_ = w.WriteSettings()
	write(w)
	return w.take()
}

// TestEarlyPhase: as long as a server owes its SETTINGS the time for a head runs, whatever
// the client sends.
func TestEarlyPhase(t *testing.T) {
	for name, write := range map[string]func(w *wire){
		"nothing":   func(*wire) {},
		"DATA":      func(w *wire) { _ = w.WriteData(1, false, make([]byte, 1000)) },
		"a request": func(w *wire) { w.request(1, false, "POST", "/a") },
	} {
		s := New(&judge{}, Limits{})
		r := parsertest.New(s)
		r.Write(parsers.Client, []byte(early(write)))
		if got := s.Phase(); got != parsers.Head {
			t.Errorf("%s: phase %d before SETTINGS", name, got)
		}
	}
	w := newWire()
	_ = w.WriteSettings()
	s := New(&judge{}, Limits{})
	r := parsertest.New(s)
	r.Write(parsers.Client, []byte(early(func(*wire) {})))
	r.Write(parsers.Server, []byte(w.take()))
	if got := s.Phase(); got != parsers.Idle {
		t.Errorf("phase %d behind SETTINGS", got)
	}
}

// TestEarlyLimit: a client that sends much before the server's SETTINGS is refused.
func TestEarlyLimit(t *testing.T) {
	much := early(func(w *wire) {
		for range 5 {
			_ = w.WriteData(1, false, make([]byte, minFrame))
		}
	})
	o := playAll(t, judge{}, Limits{Early: 64 << 10}, arrival{parsers.Client, much})
	if o.relay.Err != error(ErrEarly) || read(o.client) != "SETTINGS 0\nGOAWAY 0 0 ENHANCE_YOUR_CALM" || len(o.relay.Out[parsers.Server]) > 100 {
		t.Errorf("%v, client got\n%s", o.relay.Err, read(o.client))
	}
	o = playAll(t, judge{}, Limits{}, arrival{parsers.Client, much})
	if o.relay.Err != nil {
		t.Error(o.relay.Err)
	}
}
