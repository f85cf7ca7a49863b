package http2

import (
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

var update = flag.Bool("update", false, "write the golden files")

const okHead = ":status=200"

// call writes the head of a gRPC call, message one message of n bytes.
func (t *talk) call(id uint32, path string) {
	t.client.request(id, false, "POST", path, "content-type=application/grpc", "te=trailers")
}

func message(n int) []byte {
	return append([]byte{0, 0, 0, byte(n >> 8), byte(n)}, make([]byte, n)...)
}

// conversations are played in all ways; what came of them is in the golden file.
var conversations = map[string]func(t *talk){
	"get": func(t *talk) {
		t.client.request(1, true, "GET", "/a", "x-y=z")
		t.flush()
		t.server.headers(1, false, okHead)
		_ = t.server.WriteData(1, true, []byte("hello"))
		t.flush()
		t.client.request(3, true, "GET", "/a", "x-y=z")
		t.flush()
		t.server.headers(3, true, ":status=204")
	},
	"body and trailers": func(t *talk) {
		t.client.request(1, false, "POST", "/a", "content-length=5", "trailer=t")
		_ = t.client.WriteDataPadded(1, false, []byte("he"), make([]byte, 9))
		_ = t.client.WriteData(1, false, []byte("llo"))
		t.client.headers(1, true, "t=1")
		t.flush()
		t.server.headers(1, false, okHead)
		_ = t.server.WriteData(1, false, []byte("hi"))
		t.server.headers(1, true, "t=2")
	},
	"one of three is denied": func(t *talk) {
		t.client.request(1, true, "GET", "/a", "x-y=z")
		t.client.request(3, true, "GET", "/deny", "x-y=new")
		t.client.request(5, true, "GET", "/a", "x-y=new")
		t.client.request(7, true, "GET", "/a", "x-y=z")
		t.flush()
		for _, id := range []uint32{7, 1, 5} {
			t.server.headers(id, true, okHead, "x=1")
		}
	},
	"denied with a body": func(t *talk) {
		t.client.request(1, false, "POST", "/deny")
		_ = t.client.WriteData(1, false, make([]byte, 20000)[:16384])
		_ = t.client.WriteData(1, true, []byte("late"))
		t.client.request(3, false, "POST", "/deny")
		_ = t.client.WriteData(3, false, []byte("late"))
		t.client.headers(3, true, "t=1")
		t.client.request(5, false, "POST", "/deny")
		_ = t.client.WriteRSTStream(5, http2.ErrCodeCancel)
		t.client.request(7, true, "GET", "/a")
	},
	"denied in other ways": func(t *talk) {
		t.client.request(1, true, "HEAD", "/deny")
		t.client.request(3, true, "GET", "/own")
		t.call(5, "/deny.Svc/Method")
		_ = t.client.WriteData(5, true, message(9))
		t.call(7, "/own.Svc/Method")
	},
	"denied before SETTINGS": func(t *talk) {
		*t = talk{client: newWire(), server: newWire()}
		_, _ = t.client.WriteString(Preface)
		_ = t.client.WriteSettings()
		t.client.request(1, true, "GET", "/deny")
		t.client.request(3, true, "GET", "/a")
		t.flush()
		_ = t.server.WriteSettings()
		t.flush() // now it gets to know of requests
		t.server.headers(3, true, okHead)
	},
	"nothing but SETTINGS before SETTINGS": func(t *talk) {
		*t = talk{client: newWire(), server: newWire()}
		_, _ = t.client.WriteString(Preface)
		_ = t.client.WriteSettings(http2.Setting{ID: 0x4745, Val: 0x54202f20}, http2.Setting{ID: http2.SettingNoRFC7540Priorities, Val: 1})
		t.client.request(1, false, "POST", "/a")
		_ = t.client.WriteData(1, true, []byte("GET /deny HTTP/1.1\r\nHost: h\r\n\r\n"))
		_ = t.client.WriteGoAway(0, http2.ErrCodeNo, []byte("GET /deny HTTP/1.1\r\nHost: h\r\n\r\n"))
		t.flush()
		_, _ = t.server.WriteString("HTTP/1.1 400 Bad Request\r\n\r\n")
	},
	"path in another form": func(t *talk) {
		t.client.request(1, true, "GET", "//a/../%62?x=//..")
		t.client.request(3, true, "GET", "/b?x=//..")
		t.client.request(5, true, "GET", "/.a/x")
		t.client.request(7, true, "OPTIONS", "*")
	},
	"path refused": func(t *talk) {
		t.client.request(1, true, "GET", "/a%2Fb")
		t.client.request(3, false, "POST", "/a#b")
		t.client.request(5, true, "GET", "/%2e%2e;x/")
		t.client.request(7, true, "GET", "/a", "expect=x")
	},
	"edited": func(t *talk) {
		t.client.request(1, true, "GET", "/edit", "x-secret=a", "host=h", "x=1")
		t.client.request(3, true, "GET", "/a", "x-secret=a")
	},
	"cookie in crumbs": func(t *talk) {
		t.client.request(1, true, "GET", "/a", "cookie=a=1", "x=y", "cookie=b=2")
	},
	"in many frames": func(t *talk) {
		block := t.client.encode(":method=GET", ":scheme=http", ":path=/a", ":authority=h", "x-y=z")
		_ = t.client.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: block[:3], EndStream: true, PadLength: 7,
			Priority: http2.PriorityParam{StreamDep: 9, Exclusive: true, Weight: 3},
		})
		_ = t.client.WriteContinuation(1, false, nil)
		_ = t.client.WriteContinuation(1, true, block[3:])
		t.client.request(3, true, "GET", "/deny")
		block = t.client.encode(":method=GET", ":scheme=http", ":path=/b", ":authority=h", "long="+strings.Repeat("{", 20000))
		_ = t.client.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: block[:16000]})
		_ = t.client.WriteContinuation(5, true, block[16000:])
	},
	"interim answers": func(t *talk) {
		t.client.request(1, false, "POST", "/a", "expect=100-continue")
		t.flush()
		t.server.headers(1, false, ":status=100")
		t.server.headers(1, false, ":status=103", "link=x")
		t.flush()
		_ = t.client.WriteData(1, true, []byte("hello"))
		t.flush()
		t.server.headers(1, true, okHead)
	},
	"resets": func(t *talk) {
		t.client.request(1, false, "POST", "/a")
		t.client.request(3, true, "GET", "/a")
		t.client.request(5, false, "POST", "/a")
		t.client.request(7, false, "POST", "/a")
		_ = t.client.WriteRSTStream(1, http2.ErrCodeCancel)
		t.flush()
		t.server.headers(1, false, okHead, "late=1")
		_ = t.server.WriteData(1, true, []byte("late"))
		_ = t.server.WriteRSTStream(3, http2.ErrCodeRefusedStream)
		t.server.headers(5, true, ":status=413")
		_ = t.server.WriteRSTStream(5, http2.ErrCodeNo)
		_ = t.server.WriteRSTStream(7, http2.ErrCodeInternal)
		t.flush()
		_ = t.client.WriteData(5, false, []byte("late"))
		_ = t.client.WriteRSTStream(5, http2.ErrCodeNo)
		_ = t.client.WriteWindowUpdate(7, 9)
		t.client.headers(7, true, "late=1")
		_ = t.client.WriteRSTStream(3, http2.ErrCodeCancel)
	},
	"calls": func(t *talk) {
		t.call(1, "/p.Svc/Unary")
		_ = t.client.WriteData(1, true, message(3))
		t.call(3, "/p.Svc/Stream")
		all := append(append(message(0), message(300)...), message(1)...)
		_ = t.client.WriteData(3, false, all[:7])
		_ = t.client.WriteData(3, false, all[7:8])
		_ = t.client.WriteData(3, false, all[8:200])
		t.call(5, "/p.Svc/Broken")
		t.call(7, "/p.Svc/Cancelled")
		t.flush()
		t.server.headers(1, false, okHead, "content-type=application/grpc")
		_ = t.server.WriteDataPadded(1, false, message(4), make([]byte, 30))
		t.server.headers(1, true, "grpc-status=0", "grpc-message=")
		t.server.headers(5, true, okHead, "content-type=application/grpc", "grpc-status=12")
		t.server.headers(7, false, okHead, "content-type=application/grpc")
		_ = t.server.WriteRSTStream(5, http2.ErrCodeNo)
		t.flush()
		_ = t.client.WriteData(3, true, all[200:])
		_ = t.client.WriteRSTStream(7, http2.ErrCodeCancel)
		t.flush()
		t.server.headers(3, false, okHead, "content-type=application/grpc")
		for range 3 {
			_ = t.server.WriteData(3, false, append(message(2), message(1)...))
		}
		t.server.headers(3, true, "grpc-status=5")
	},
	"control": func(t *talk) {
		_ = t.client.WritePing(false, [8]byte{1})
		_ = t.client.WritePing(true, [8]byte{9}) // nobody asked
		_ = t.client.WritePriority(9, http2.PriorityParam{StreamDep: 3})
		_ = t.client.WriteRawFrame(0xbe, 0xff, 3, []byte("extension"))
		_ = t.client.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1}, http2.Setting{ID: 99, Val: 7})
		t.flush()
		_ = t.server.WritePing(true, [8]byte{1})
		_ = t.server.WritePing(false, [8]byte{2})
		_ = t.server.WriteSettingsAck()
		_ = t.server.WriteRawFrame(0xbe, 0xff, 3, []byte("extension"))
		_ = t.server.WriteGoAway(0, http2.ErrCodeNo, []byte("bye"))
		t.flush()
		_ = t.client.WriteGoAway(0, http2.ErrCodeNo, nil)
	},
	"tunnel": func(t *talk) {
		t.client.headers(1, false, ":method=CONNECT", ":authority=db:5432")
		t.flush()
		t.server.headers(1, false, okHead)
		_ = t.server.WriteData(1, false, []byte("hi"))
		t.flush()
		_ = t.client.WriteData(1, true, []byte("hello"))
		t.client.headers(3, false, ":method=CONNECT", ":authority=db")
	},
	"settings": func(t *talk) {
		*t = *newTalk(
			[]http2.Setting{{ID: http2.SettingHeaderTableSize, Val: 1 << 30}, {ID: http2.SettingEnablePush, Val: 1}, {ID: http2.SettingMaxHeaderListSize, Val: 10}},
			[]http2.Setting{
				{ID: http2.SettingInitialWindowSize, Val: 1}, {ID: http2.SettingInitialWindowSize, Val: 2},
				{ID: http2.SettingMaxConcurrentStreams, Val: 1 << 31}, {ID: http2.SettingEnableConnectProtocol, Val: 1},
				{ID: http2.SettingMaxFrameSize, Val: 1 << 20}, {ID: http2.SettingMaxHeaderListSize, Val: 1 << 30},
			})
	},
	"the client ends": func(t *talk) {
		t.client.request(1, true, "GET", "/a")
		t.flush()
		t.script = append(t.script, arrival{parsers.Client, fin})
		t.server.headers(1, true, okHead)
	},
	"the server ends": func(t *talk) {
		t.client.request(1, true, "GET", "/a")
		t.flush()
		t.server.headers(1, true, okHead)
		t.flush()
		t.script = append(t.script, arrival{parsers.Server, fin})
	},
	"a denial's body is taken from the next window update": func(t *talk) {
		t.client.request(1, true, "GET", "/deny")
		_ = t.client.WriteWindowUpdate(0, 5)
		_ = t.client.WriteWindowUpdate(0, 20)
		t.client.request(3, true, "GET", "/a")
		_ = t.client.WriteWindowUpdate(3, 5)
	},
	"some is kept of a large window update": func(t *talk) {
		_ = t.client.WriteWindowUpdate(0, 1<<20)
		t.client.request(1, true, "GET", "/deny")
		_ = t.client.WriteWindowUpdate(0, 5)
		_ = t.client.WriteWindowUpdate(0, 1<<20)
	},
	"no room for a body": func(t *talk) {
		*t = *newTalk([]http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 14}}, nil)
		t.client.request(1, true, "GET", "/deny")
	},
	"a frame waits for room that a denial took": func(t *talk) {
		t.client.request(1, true, "GET", "/a")
		t.client.request(3, true, "GET", "/deny")
		t.flush()
		t.server.headers(1, false, okHead)
		for range 3 {
			_ = t.server.WriteData(1, false, make([]byte, 16384))
		}
		_ = t.server.WriteData(1, false, make([]byte, 16383))
		_ = t.server.WritePing(false, [8]byte{2})
		t.flush()
		_ = t.client.WritePing(false, [8]byte{3})
		t.flush()
		_ = t.client.WriteWindowUpdate(0, 14)
		t.flush()
		_ = t.client.WriteWindowUpdate(0, 14)
	},
	"the server's table shrinks": func(t *talk) {
		*t = *newTalk(nil, []http2.Setting{{ID: http2.SettingHeaderTableSize, Val: 100}})
		t.client.encoder.SetMaxDynamicTableSize(100)
		t.client.request(1, true, "GET", "/a", "x-y=z")
		t.client.request(3, true, "GET", "/a", "x-y=z")
	},
	"the client's table shrinks": func(t *talk) {
		*t = *newTalk([]http2.Setting{{ID: http2.SettingHeaderTableSize, Val: 100}}, nil)
		t.client.request(1, true, "GET", "/a")
		t.client.request(3, true, "GET", "/deny")
		t.flush()
		t.server.encoder.SetMaxDynamicTableSize(100)
		t.server.headers(1, true, okHead, "a=b")
		t.flush()
		t.client.request(5, true, "GET", "/deny")
	},
}

// rendered is an outcome as it stands in the golden file.
func (o *outcome) rendered() string {
	return fmt.Sprintf("server\n%s\nclient\n%s\nlog\n%s\n%s\n", indent(read(o.server)), indent(read(o.client)), indent(o.log), o.state)
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

func TestConversations(t *testing.T) {
	golden(t, "testdata/conversations.golden", len(conversations), func(run func(name string, body func(t *testing.T) string)) {
		for name, build := range conversations {
			run(name, func(t *testing.T) string {
				c := newTalk(nil, nil)
				build(c)
				j := judge{edit: []policy.HTTPHeader{{Name: []byte("X-New"), Value: []byte("1")}}}
				o := playAll(t, j, Limits{}, c.flush().script...)
				return o.rendered()
			})
		}
	})
}

// golden compares what the cases give with a file of sections.
func golden(t *testing.T, file string, n int, cases func(run func(name string, body func(t *testing.T) string))) {
	t.Helper()
	want := map[string]string{}
	if b, err := os.ReadFile(file); err == nil {
		for _, section := range strings.Split(string(b), "== ")[1:] {
			name, text, _ := strings.Cut(section, "\n")
			want[name] = text
		}
	} else if !*update {
		t.Fatal(err)
	}
	got := map[string]string{}
	cases(func(name string, body func(t *testing.T) string) {
		t.Run(name, func(t *testing.T) {
			got[name] = body(t) + "\n"
			if !*update && got[name] != want[name] {
				t.Errorf("got\n%s\nwant\n%s", got[name], want[name])
			}
		})
	})
	if *update {
		var names []string
		for name := range got {
			names = append(names, name)
		}
		sort.Strings(names)
		var b strings.Builder
		for _, name := range names {
			fmt.Fprintf(&b, "== %s\n%s", name, got[name])
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if len(want) != n {
		t.Errorf("%s has %d cases, there are %d: run with -update", file, len(want), n)
	}
}
