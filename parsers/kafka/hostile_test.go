package kafka

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

// raw makes a request of a header and a body as they are.
func raw(key, version int16, flexible bool, body ...byte) []byte {
	b := make([]byte, 4)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, 7)
	b = append(b, 0, 1, 'c')
	if flexible {
		b = append(b, 0)
	}
	return frame(append(b, body...))
}

// TestHostile wants not one byte to go on, the connection to end, and neither time
// nor memory to be spent on what is claimed.
func TestHostile(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f} // as a varint
	for name, input := range map[string][]byte{
		"negative length":                      {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0, 0, 0, 0, 1},
		"no length":                            {0, 0, 0, 0, 0, 3, 0, 0},
		"length of less than a head":           {0, 0, 0, 9, 0, 3, 0, 0, 0, 0, 0, 1, 0xff},
		"TLS":                                  append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 300)...),
		"HTTP":                                 []byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
		"unknown API":                          raw(500, 0, false),
		"negative API":                         raw(-1, 0, false),
		"inter-broker API":                     raw(58, 0, true, 1, 2, 3),
		"unknown version":                      raw(3, 99, true),
		"negative version":                     raw(3, -1, false),
		"SaslHandshake without headers behind": raw(17, 0, false, 0, 5, 'P', 'L', 'A', 'I', 'N'),
		"client id longer than it":             frame([]byte{0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 1, 0x7f, 0xff}),
		"negative client id":                   frame([]byte{0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 1, 0x80, 0}),
		"tags in the header":                   raw(3, 12, false, huge...),
		"count of topics":                      raw(3, 1, false, 0x7f, 0xff, 0xff, 0xff),
		"negative count":                       raw(3, 1, false, 0x80, 0, 0, 0),
		"null that cannot be":                  raw(19, 2, false, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0),
		"compact count":                        raw(3, 12, true, huge...),
		"varint too long":                      raw(3, 12, true, 0x80, 0x80, 0x80, 0x80, 0x80, 1),
		"varint too large":                     raw(3, 12, true, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"tags":                                 raw(3, 12, true, append([]byte{1, 0, 0}, huge...)...),
		"tags that do nothing":                 raw(3, 12, true, append(append([]byte{1, 0, 0}, huge...), bytes.Repeat([]byte{0, 0}, 400_000)...)...),
		"tag longer than it":                   raw(3, 12, true, append([]byte{1, 0, 0, 1, 5}, huge...)...),
		"tags twice":                           raw(3, 12, true, 1, 0, 0, 2, 5, 0, 5, 0),
		"bytes left over":                      raw(3, 12, true, 1, 0, 0, 0, 0),
		"body cut short":                       raw(3, 12, true, 1, 0),
		"a million topics":                     raw(20, 1, false, append([]byte{0, 0xf, 0x42, 0x40}, make([]byte, 1_000_010)...)...),
		"too long for its API":                 {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff},
		"produce: a topic longer than it":      raw(0, 3, false, 0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 0xff),
		"produce: a count that cannot be":      raw(0, 3, false, 0xff, 0xff, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x80),
		"produce: null topics":                 raw(0, 9, true, 0, 0, 1, 0, 0, 0, 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			for _, split := range []parsertest.Splits{parsertest.Whole, parsertest.Random(1)} {
				honest := requestFrame(1, metadataOf(5, true, "a"))
				w := newWire(t, split, policy.KafkaRule{})
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				begun := time.Now()
				w.Write(parsers.Client, slices.Concat(honest, input, honest))
				if took := time.Since(begun); took > 20*time.Second {
					t.Errorf("it took %s", took)
				}
				runtime.ReadMemStats(&after)
				if used := after.TotalAlloc - before.TotalAlloc; split(100) == 100 && used > 64<<20 {
					t.Errorf("it took %d MB", used>>20)
				}
				if got := w.got(parsers.Server); !slices.Equal(got, honest) {
					t.Errorf("the server got %d bytes more: %x", len(got)-len(honest), got[min(len(got), len(honest)):min(len(got), len(honest)+40)])
				}
				if w.Err == nil && !w.Closed {
					t.Error("the connection goes on")
				}
			}
		})
	}
}

// TestHostileServer wants nothing to reach the client from a server that does not
// answer what was asked.
func TestHostileServer(t *testing.T) {
	answer := responseFrame(1, metadata(5, "a"))
	for name, input := range map[string][]byte{
		"another correlation id": responseFrame(2, metadata(5, "a")),
		"negative length":        {0xff, 0, 0, 0, 0, 0, 0, 1},
		"too long":               {0x7f, 0, 0, 0, 0, 0, 0, 1},
		"count of topics":        frame(append(make([]byte, 4), 0, 0, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff)),
		"cut short":              frame(slices.Clone(answer[:len(answer)-3])),
		"twice":                  slices.Concat(answer, answer),
	} {
		w := newWire(t, parsertest.Whole, policy.KafkaRule{})
		w.Write(parsers.Client, requestFrame(1, metadataOf(5, true, "a")))
		w.Write(parsers.Server, append(slices.Clone(input), make([]byte, 600)...))
		got := w.got(parsers.Client)
		if name == "twice" {
			got = bytes.TrimPrefix(got, answer)
		}
		if len(got) > 0 || w.Err == nil {
			t.Errorf("%s: the client got %d bytes, error %v", name, len(got), w.Err)
		}
	}
	w := newWire(t, parsertest.Whole, policy.KafkaRule{})
	w.Write(parsers.Server, answer)
	if got := w.got(parsers.Client); len(got) > 0 || w.Err == nil {
		t.Errorf("unasked: the client got %x, error %v", got, w.Err)
	}
}

// TestTruncated cuts every request of every version short: nothing of it may go on
// that needs to be read as a whole, and nothing may be let through as another.
func TestTruncated(t *testing.T) {
	everyVersion(t, func(t *testing.T, request kmsg.Request) {
		if request.Key() == keyProduce {
			return // goes on as soon as its topic is known
		}
		full := requestFrame(1, request)
		for cut := 14; cut < len(full); cut += 1 + len(full)/16 {
			w := newWire(t, parsertest.Whole, policy.KafkaRule{})
			w.Session.(*Session).topics.Learn(thingID, "thing")
			w.Write(parsers.Client, full[:cut])
			if got := w.got(parsers.Server); len(got) > 0 {
				t.Fatalf("of %d of %d bytes the server got %x", cut, len(full), got)
			}
			w = newWire(t, parsertest.Whole, policy.KafkaRule{}) // as if it were whole
			w.Session.(*Session).topics.Learn(thingID, "thing")
			w.Write(parsers.Client, frame(slices.Clone(full[:cut])))
			if got := w.got(parsers.Server); len(got) > 0 {
				t.Fatalf("of a request that says it has %d of its %d bytes the server got %x", cut, len(full), got)
			}
		}
	})
}

// TestNamesAreFound holds the layouts against kmsg: whatever field of a request has
// a name in it that says topic, group or transaction is found in every version.
func TestNamesAreFound(t *testing.T) {
	everyVersion(t, func(t *testing.T, request kmsg.Request) {
		var want []string
		name(reflect.ValueOf(request).Elem(), "", &want)
		b := request.AppendTo(nil)
		var s scan
		if err := s.read(apis()[request.Key()].request(request.GetVersion()), request.GetVersion(), b, maxMarks); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, it := range s.items(request.Key()) {
			got = append(got, it.topic, it.group, it.transaction, string(it.id[:]))
		}
		for _, w := range want {
			if bytes.Contains(b, []byte(w)) && !slices.Contains(got, w) && !slices.Contains(got, anyTopic) {
				t.Errorf("%q is not among what is judged: %q", w, got)
			}
		}
	})
}

// name gives all that looks like a name one of its own.
func name(v reflect.Value, field string, names *[]string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			name(v.Elem(), field, names)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name(v.Field(i), v.Type().Field(i).Name, names)
		}
	case reflect.Slice:
		for i := range v.Len() {
			name(v.Index(i), field, names)
		}
	case reflect.String:
		for _, word := range []string{"Topic", "Group", "Transactional", "CoordinatorKey"} {
			if strings.HasSuffix(field, "Pattern") {
				continue // narrows a list that needs a rule of its own
			}
			// Streams names parts of its own in these.
			if strings.HasPrefix(field, word) || strings.HasSuffix(field, word) || strings.HasSuffix(field, word+"s") || strings.HasSuffix(field, word+"ID") {
				text := "name-" + string(rune('a'+len(*names)))
				v.SetString(text)
				*names = append(*names, text)
				return
			}
		}
	}
}

func FuzzRequests(f *testing.F) {
	for key, a := range apis() {
		for version := a.versions.from; version <= a.versions.to; version++ {
			request := kmsg.RequestForKey(key)
			request.SetVersion(version)
			fill(reflect.ValueOf(request), map[string]any{"Acks": int16(1), "SessionID": int32(0), "SessionEpoch": int32(-1)})
			f.Add(requestFrame(1, request), uint64(version))
		}
	}
	f.Add(requestFrame(1, produceOf(9, "x", "a", "b")), uint64(1))
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		play := func(split parsertest.Splits) *wire {
			w := learnt(newWire(t, split, onlyA))
			w.Session.(*Session).topics.Learn(thingID, "thing")
			w.Write(parsers.Client, input)
			w.Elapse()
			return w
		}
		whole, pieces := play(parsertest.Whole), play(parsertest.Random(seed))
		for side := range whole.Out {
			if !bytes.Equal(whole.Out[side], pieces.Out[side]) {
				t.Fatalf("side %d got %x whole and %x in pieces", side, whole.Out[side], pieces.Out[side])
			}
		}
		// Whoever reads what went on finds nothing that rules deny.
		rest := whole.Out[parsers.Server]
		for len(rest) > 0 {
			h := newHooks(t, onlyA)
			s := New(h, whole.Session.(*Session).topics)
			if n := s.fromClient(rest); n <= 0 || n > int64(len(rest)) {
				return // a request that is not whole yet
			}
			size := int64(binary.BigEndian.Uint32(rest)) + 4
			for i, line := range h.requests {
				if !strings.HasPrefix(line, "allowed") && s.queue != nil && s.queue[len(s.queue)-1].key != keyMetadata {
					t.Fatalf("request %d of what went on: %s", i, line)
				}
			}
			rest = rest[size:]
		}
	})
}

func FuzzResponses(f *testing.F) {
	kinds := []kmsg.Request{metadataOf(12, false), fetchOf(12, 0, -1, "a", "b"), fetchOf(18, 0, 0, "a"), produceOf(9, "x", "a", "b"), kmsg.NewPtrApiVersionsRequest()}
	for i, request := range kinds {
		response := request.ResponseKind()
		response.SetVersion(request.GetVersion())
		fill(reflect.ValueOf(response), nil)
		f.Add(uint8(i), responseFrame(1, response), uint64(1))
	}
	f.Fuzz(func(t *testing.T, kind uint8, input []byte, seed uint64) {
		play := func(split parsertest.Splits) *wire {
			w := learnt(newWire(t, parsertest.Whole, onlyA))
			w.Write(parsers.Client, requestFrame(1, kinds[int(kind)%len(kinds)]))
			w.Splits = split
			w.Write(parsers.Server, input)
			return w
		}
		whole, pieces := play(parsertest.Whole), play(parsertest.Random(seed))
		if a, b := whole.Out[parsers.Client], pieces.Out[parsers.Client]; !bytes.Equal(a, b) {
			t.Fatalf("the client got %x whole and %x in pieces", a, b)
		}
	})
}
