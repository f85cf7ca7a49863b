package http2

import (
	"errors"
	"strings"
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

// TestServerDoesNotBegin: what waited for a server that ends, or speaks something else, is
// judged and answered, as where there is none.
func TestServerDoesNotBegin(t *testing.T) {
	asked := early(func(w *wire) {
		w.request(1, true, "GET", "/a")
		w.request(3, true, "GET", "/deny")
	})
	for name, tt := range map[string]struct {
		says []string
		want *Refusal
	}{
		"ends":             {[]string{fin}, ErrServerEnded},
		"ends in a frame":  {[]string{"\x00\x00", fin}, ErrServerOther},
		"HTTP/1":           {[]string{"HTTP/1.1 400 Bad Request\r\n\r\n", fin}, ErrServerOther},
		"a broken setting": {[]string{"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x01"}, ErrServerOther},
	} {
		script := []arrival{{parsers.Client, asked}}
		for _, s := range tt.says {
			script = append(script, v(s))
		}
		o := playAll(t, judge{}, Limits{}, script...)
		down := read(o.client)
		if o.relay.Err != error(tt.want) || !errors.Is(o.relay.Err, parsers.ErrNoServer) || strings.Contains(read(o.server), "HEADERS") {
			t.Errorf("%s: %v, server got\n%s", name, o.relay.Err, read(o.server))
		}
		for _, want := range []string{"SETTINGS 0\n", "HEADERS 1 :status=502", "HEADERS 3 :status=403", "GOAWAY 0 3 NO_ERROR"} {
			if strings.Count(down, want) != 1 {
				t.Errorf("%s: no %q: client got\n%s", name, want, down)
			}
		}
		if !strings.Contains(o.log, "1 GET /a h redirect") || !strings.Contains(o.log, "2 GET /deny h deny") {
			t.Errorf("%s: log\n%s", name, o.log)
		}
	}
	// One that says nothing is given up by the relay.
	s := New(&judge{}, Limits{})
	if s.Abandon() {
		t.Error("given up before anything was sent to it")
	}
	r := parsertest.New(s)
	r.Write(parsers.Client, []byte(asked))
	if !s.Abandon() {
		t.Error("not given up")
	}
	r.Write(parsers.Client, []byte{0})
	if r.Err != error(ErrServerSilent) || !strings.Contains(read(string(r.Out[parsers.Client])), ":status=502") {
		t.Errorf("%v, client got\n%s", r.Err, read(string(r.Out[parsers.Client])))
	}
}
