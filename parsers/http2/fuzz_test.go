package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
)

// sameInPieces plays the script whole and in the pieces that seed gives. A head whose body
// is not as long as it says goes on if that was not there yet.
func sameInPieces(t *testing.T, seed uint64, script []arrival) outcome {
	whole, pieces := play(parsertest.Whole, judge{}, Limits{}, script), play(parsertest.Random(seed), judge{}, Limits{}, script)
	if strings.Contains(whole.log, ErrBodyLength.Error()) {
		checkUpstream(t, pieces)
		return whole
	}
	if whole.server != pieces.server || whole.client != pieces.client || whole.log != pieces.log || whole.state != pieces.state {
		t.Fatalf("whole\n%s\n%s\n%s\n%s\nin pieces\n%s\n%s\n%s\n%s", read(whole.server), read(whole.client), whole.log, whole.state,
			read(pieces.server), read(pieces.client), pieces.log, pieces.state)
	}
	if err := whole.relay.Err; err != nil {
		if _, ok := err.(*Refusal); !ok && err != parsertest.ErrCut {
			t.Fatal(err)
		}
	}
	return whole
}

// checkUpstream reads what the server got as a server does: it must find the
// requests that were allowed, and nothing else.
func checkUpstream(t *testing.T, o outcome) {
	var want []string
	for _, line := range strings.Split(o.log, "\n") {
		if f := strings.SplitN(line, " ", 4); strings.HasSuffix(line, " redirect") && len(f) == 4 {
			want = append(want, f[1]+" "+f[2])
		}
	}
	fr := http2.NewFramer(nil, strings.NewReader(strings.TrimPrefix(o.server, Preface)))
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var got []string
	seen := map[uint32]bool{}
	for {
		f, err := fr.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // a frame of which not all came
			break
		}
		if err != nil {
			t.Fatalf("%v (%v)\nserver got %q\n%s\nlog\n%s", err, fr.ErrorDetail(), o.server, read(o.server), o.log)
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok && !seen[h.StreamID] {
			seen[h.StreamID] = true
			got = append(got, h.PseudoValue("method")+" "+h.PseudoValue("path"))
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("server reads\n%s\nallowed were\n%s\nlog\n%s", got, want, o.log)
	}
}

func seeds(f *testing.F, side parsers.Side) {
	for _, build := range conversations {
		c := newTalk(nil, nil)
		build(c)
		var b bytes.Buffer
		for _, a := range c.flush().script {
			if a.from == side && a.data != fin {
				b.WriteString(a.data)
			}
		}
		f.Add(b.Bytes(), uint64(b.Len()))
	}
}

// FuzzClient: what goes upstream is what was judged, for any other reader, and does
// not depend on how it came in.
func FuzzClient(f *testing.F) {
	seeds(f, parsers.Client)
	for _, tt := range streamErrors {
		c := newTalk(nil, nil)
		tt.write(c.client)
		f.Add([]byte(c.script[0].data+c.client.take()), uint64(3))
	}
	for _, tt := range connectionErrors {
		c := newTalk(nil, nil)
		c.client.request(1, false, "POST", "/before")
		tt.write(c.client)
		f.Add([]byte(c.script[0].data+c.client.take()), uint64(3))
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		w := newWire()
		_ = w.WriteSettings()
		checkUpstream(t, sameInPieces(t, seed, []arrival{{parsers.Client, string(input)}, v(w.take()), v(fin)}))
	})
}

// FuzzBlocks: the same for the fields of three requests on one connection.
func FuzzBlocks(f *testing.F) {
	w := newWire()
	for _, path := range []string{"/a", "/deny", "//b", "/c%2f"} {
		a := w.encode(":method=GET", ":scheme=http", ":path="+path, ":authority=h", "x=y")
		b := w.encode(":method=GET", ":scheme=http", ":path="+path, ":authority=h", "x=y", "cookie=a", "cookie=b")
		f.Add(a, b, w.encode(":method=POST", ":scheme=http", ":path=/d", ":authority=h", "x=y"), uint64(1))
	}
	f.Add([]byte{0x82, 0x86, 0x84, 0x41, 0x81, 0x9f}, []byte{0x20, 0x82, 0x86, 0x84, 0xbe}, []byte{0x3f, 0xe1, 0x1f, 0x82, 0x86, 0x84, 0x41, 1, 'h'}, uint64(2))
	f.Fuzz(func(t *testing.T, a, b, c []byte, seed uint64) {
		w := newTalk(nil, nil)
		for i, block := range [][]byte{a, b, c} {
			block = block[:min(len(block), minFrame)]
			_ = w.client.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block, EndStream: true, EndHeaders: true})
		}
		checkUpstream(t, sameInPieces(t, seed, w.flush().script))
	})
}

// FuzzServer: a client reads what the server sent, and answers of ours, each on its
// stream; nothing on streams it did not open.
func FuzzServer(f *testing.F) {
	seeds(f, parsers.Server)
	talk := newTalk(nil, nil)
	c := talk.client
	for id := uint32(1); id < 8; id += 2 {
		c.request(id, false, "POST", fmt.Sprintf("/%d", id), "content-type=application/grpc")
	}
	c.request(9, true, "GET", "/deny")
	_ = c.WriteRSTStream(7, http2.ErrCodeCancel)
	script := slices.Clip(talk.flush().script)
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		o := sameInPieces(t, seed, append(script, v(string(input)), v(fin)))
		fr := http2.NewFramer(nil, strings.NewReader(o.client))
		for n := 0; ; n++ {
			frame, err := fr.ReadFrame()
			if err != nil {
				return // what a server may get wrong is the client's business
			}
			h := frame.Header()
			if n == 0 && h.Type != http2.FrameSettings {
				t.Fatalf("begins with %s", h)
			}
			if h.StreamID > 9 || h.StreamID > 0 && h.StreamID%2 == 0 || h.Type == http2.FramePushPromise {
				t.Fatalf("client got %s", h)
			}
		}
	})
}
