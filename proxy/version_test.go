package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// web2 is web before a server that takes both versions.
func web2(t *testing.T, handler http.Handler, change func(*Config)) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: handler, Protocols: &p}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	r := startProxy(t, l.Addr().String(), func(c *Config) {
		c.Compile = nil
		if change != nil {
			change(c)
		}
	})
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {allow("GET", "/public.*"), allow("POST", "/.*")}})
	return r
}

// asker2 asks over HTTP/2 by hand.
type asker2 struct {
	t *testing.T
	c net.Conn
	*http2.Framer
	encoder *hpack.Encoder
	block   strings.Builder
	next    uint32
}

// asker2 begins a connection; with slow, every byte comes by itself.
func (r *running) asker2(slow bool) *asker2 {
	r.t.Helper()
	a := &asker2{t: r.t, c: r.dial(), next: 1}
	var w io.Writer = a.c
	if slow {
		w = bytewise{a.c}
	}
	_, err := io.WriteString(w, http2.ClientPreface)
	must(r.t, err)
	a.Framer = http2.NewFramer(w, a.c)
	a.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	a.encoder = hpack.NewEncoder(&a.block)
	must(r.t, a.WriteSettings())
	return a
}

type bytewise struct{ io.Writer }

func (w bytewise) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := w.Writer.Write(b[i : i+1]); err != nil {
			return i, err
		}
		time.Sleep(100 * time.Microsecond)
	}
	return len(b), nil
}

func (a *asker2) send(method, path string) {
	a.t.Helper()
	a.block.Reset()
	for _, f := range [][2]string{{":method", method}, {":scheme", "http"}, {":path", path}, {":authority", "web"}} {
		must(a.t, a.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	must(a.t, a.WriteHeaders(http2.HeadersFrameParam{StreamID: a.next, BlockFragment: []byte(a.block.String()), EndStream: true, EndHeaders: true}))
	a.next += 2
}

// answers reads until so many streams have ended.
func (a *asker2) answers(n int) map[uint32]string {
	a.t.Helper()
	got := map[uint32]string{}
	for n > 0 {
		f, err := a.ReadFrame()
		if err != nil {
			a.t.Fatal(err, got)
		}
		ended := false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			got[f.StreamID] = f.PseudoValue("status") + " "
			ended = f.StreamEnded()
		case *http2.DataFrame:
			got[f.StreamID] += string(f.Data())
			ended = f.StreamEnded()
		case *http2.SettingsFrame:
			if !f.IsAck() {
				must(a.t, a.WriteSettingsAck())
			}
		case *http2.GoAwayFrame:
			a.t.Fatal(f, got)
		}
		if ended {
			n--
		}
	}
	return got
}

// The first bytes of a connection choose its version, however they come.
func TestVersions(t *testing.T) {
	r := web2(t, http.HandlerFunc(hello), nil)
	records := r.records()
	for _, slow := range []bool{false, true} {
		a := r.asker2(slow)
		a.send("GET", "/public/1")
		a.send("GET", "/secret")
		a.send("GET", "/public//./2")
		want := map[uint32]string{1: "200 hello /public/1", 3: "403 " + denied, 5: "200 hello /public/2"}
		if got := a.answers(3); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("slow %v: %v", slow, got)
		}
		verdicts := map[string]observe.Word{}
		for range 6 {
			e := <-records
			if e.HTTP.Protocol != "HTTP/2" || e.Reply && e.HTTP.Latency <= 0 {
				t.Errorf("%+v %+v", e, e.HTTP)
			}
			verdicts[fmt.Sprint(e.HTTP.URL, e.HTTP.Status)] = e.Word
		}
		if len(verdicts) != 6 || verdicts["http://web/secret0"] != observe.Dropped || verdicts["http://web/secret403"] != observe.Forwarded || verdicts["http://web/public/2200"] != observe.Forwarded {
			t.Error(verdicts)
		}
	}
	old := r.asker()
	old.send("GET /public")
	old.want(200, "hello /public")
	if e := <-records; e.HTTP.Protocol != "HTTP/1.1" {
		t.Errorf("%+v", e.HTTP)
	}
	// A method that begins as the preface does.
	odd := r.asker()
	odd.send("PRINT /public")
	odd.want(403, denied)
}

// Who cannot be given a server is told so on every stream.
func TestHTTP2ServerUnreachable(t *testing.T) {
	r := web2(t, nil, func(c *Config) {
		c.Dial = func(netip.AddrPort, netip.AddrPort) (int, error) {
			return -1, unix.ECONNREFUSED
		}
	})
	a := r.asker2(false)
	for {
		f, err := a.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			if g.ErrCode != http2.ErrCodeNo {
				t.Error(g)
			}
			break
		}
	}
	if _, err := a.ReadFrame(); err == nil {
		t.Error("the connection goes on")
	}
}

// Of requests under way, those that are denied now end, and no others.
func TestHTTP2PolicyChanges(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	r := web2(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/quick" {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			select {
			case <-block:
			case <-q.Context().Done():
			}
		}
	}), nil)
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {allow("GET", "/a"), allow("GET", "/b"), allow("GET", "/quick")}})
	a := r.asker2(false)
	a.send("GET", "/a")
	a.send("GET", "/b")
	for heads := 0; heads < 2; {
		f, err := a.ReadFrame()
		must(t, err)
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			heads++
		case *http2.SettingsFrame:
			if !f.IsAck() {
				must(t, a.WriteSettingsAck())
			}
		}
	}
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {allow("GET", "/b"), allow("GET", "/quick")}})
	a.send("GET", "/quick") // judged by the new rules, perhaps before the others are
	reset := false
	for quick := false; !reset || !quick; {
		f, err := a.ReadFrame()
		must(t, err)
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			if f.StreamID != 1 || f.ErrCode != http2.ErrCodeCancel {
				t.Fatal(f)
			}
			reset = true
		case *http2.MetaHeadersFrame:
			quick = quick || f.StreamID == 5
		case *http2.GoAwayFrame:
			t.Fatal(f)
		}
	}
	// Denied as a whole, the connection ends.
	r.connections.set(Connection{Egress: setA, Denied: true}, false)
	for {
		if _, err := a.ReadFrame(); err != nil {
			return
		}
	}
}
