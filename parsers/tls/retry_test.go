package tls

import (
	"bytes"
	"slices"
	"testing"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
)

// greeting is a hello of a server.
func greeting(random string, most int) []byte {
	body := append([]byte{3, 3}, random...)
	body = append(append(body, 0, 0x13, 1, 0), vector(2, extension(43, []byte{3, 4}))...)
	return records(append([]byte{serverHello}, vector(3, body)...), most)
}

// TestSecondHello: where the server asks for another hello, it must name the same server.
func TestSecondHello(t *testing.T) {
	change := []byte{changeCipherSpec, 3, 3, 0, 1, 1}
	first, second := hello("a.example"), records(said{names: names("A.example"), before: extension(44, []byte("cookie"))}.message(), 50)
	rest := []byte("\x17\x03\x03\x00\x02ab and so on")
	for name, tt := range map[string]struct {
		second []byte
		want   error // nil: it goes on
	}{
		"the same name":   {second, nil},
		"another":         {hello("b.example"), errOther},
		"none":            {records(said{}.message(), maxRecord), errOther},
		"broken":          {records(said{names: names("a.example", "b.example")}.message(), maxRecord), errNames},
		"no hello at all": {[]byte{22, 3, 3, 0, 4, 20, 0, 0, 0}, errHello},
		"another behind":  {records(append(said{names: names("a.example")}.message(), first[recordHead:]...), maxRecord), errBehind},
	} {
		for way, split := range splits() {
			for _, most := range []int{1, 7, 40, maxRecord} {
				j := &judge{allowed: []string{"a.example", "b.example", ""}}
				r := parsertest.New(New(j))
				r.Splits = split
				r.Write(parsers.Client, first)
				r.Write(parsers.Client, change)
				r.Write(parsers.Server, greeting(retryRandom, most))
				r.Write(parsers.Client, change)
				r.Write(parsers.Client, tt.second)
				r.Write(parsers.Client, rest)
				before := slices.Concat(first, change, change)
				got := r.Out[parsers.Server]
				switch {
				case tt.want == nil:
					if want := slices.Concat(before, tt.second, rest); !bytes.Equal(got, want) || len(j.malformed) > 0 || r.Closed {
						t.Fatalf("%s, %s, %d: %x, %v", name, way, most, got, j.malformed)
					}
				case len(j.malformed) != 1 || j.malformed[0] != tt.want || !r.Closed || !bytes.Equal(got, before):
					t.Fatalf("%s, %s, %d: %v, closed %v, the server got %x", name, way, most, j.malformed, r.Closed, got)
				}
				if len(j.asked) != 1 {
					t.Errorf("%s: asked for %q", name, j.asked)
				}
			}
		}
	}
}

// TestWaitingHello: what a client has begun to say must be whole in the time of a head, also
// where a second hello is waited for.
func TestWaitingHello(t *testing.T) {
	s := New(&judge{allowed: []string{"a.example"}})
	r := parsertest.New(s)
	says := func(from parsers.Side, b []byte, want parsers.Phase) {
		t.Helper()
		if r.Write(from, b); s.Phase() != want {
			t.Errorf("phase %d, not %d", s.Phase(), want)
		}
	}
	first := hello("a.example")
	says(parsers.Client, first[:50], parsers.Head)
	says(parsers.Client, first[50:], parsers.Response)
	says(parsers.Client, []byte{applicationData, 3, 3}, parsers.Head)
	says(parsers.Client, []byte{0, 1, 9}, parsers.Response)
	says(parsers.Client, first[:50], parsers.Head)
	says(parsers.Server, greeting(retryRandom, maxRecord), parsers.Head)
	says(parsers.Client, first[50:], parsers.Response)
}

// TestNoSecondHello: nothing is read of what follows where none was asked for, and nothing
// is passed on before that is known.
func TestNoSecondHello(t *testing.T) {
	for name, answer := range map[string][]byte{
		"a hello":        greeting(string(bytes.Repeat([]byte{9}, randomSize)), maxRecord),
		"a hello, split": greeting(string(bytes.Repeat([]byte{9}, randomSize)), 3),
		"an alert":       {21, 3, 3, 0, 2, 2, 40},
		"no TLS":         []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"another kind":   {22, 3, 3, 0, 4, 11, 0, 0, 0},
		"empty":          {22, 3, 3, 0, 0},
	} {
		for way, split := range splits() {
			j := &judge{allowed: []string{"a.example"}}
			r := parsertest.New(New(j))
			r.Splits = split
			r.Write(parsers.Client, hello("a.example"))
			r.Write(parsers.Client, hello("b.example"))
			if !bytes.Equal(r.Out[parsers.Server], hello("a.example")) {
				t.Fatalf("%s, %s: the server got %x", name, way, r.Out[parsers.Server])
			}
			r.Write(parsers.Server, answer)
			if want := append(hello("a.example"), hello("b.example")...); !bytes.Equal(r.Out[parsers.Server], want) {
				t.Errorf("%s, %s: the server got %x", name, way, r.Out[parsers.Server])
			}
			if !bytes.Equal(r.Out[parsers.Client], answer) || len(j.malformed) > 0 {
				t.Errorf("%s, %s: the client got %x, %v", name, way, r.Out[parsers.Client], j.malformed)
			}
		}
	}
}
