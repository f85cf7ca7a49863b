package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

// judge denies what has "deny" in its path and remembers what it saw.
type judge struct {
	log  []string
	pass bool // nothing is enforced
	edit []policy.HTTPHeader
}

func (j *judge) note(format string, args ...any) { j.log = append(j.log, fmt.Sprintf(format, args...)) }

func (j *judge) Request(id uint64, r policy.Request) policy.Decision {
	h := r.(*policy.HTTPRequest)
	d := policy.Decision{Verdict: policy.Redirect}
	switch {
	case strings.Contains(string(h.Path), "deny"):
		d.Verdict = policy.Deny
	case strings.Contains(string(h.Path), "own"):
		d.Verdict, d.Response = policy.Deny, &policy.DenyResponse{Status: 451, Body: "no"}
	case strings.Contains(string(h.Path), "edit"):
		d.Edited, d.Headers = true, j.edit
	}
	fields := ""
	for _, f := range h.Headers {
		fields += fmt.Sprintf(" %s=%.40s", f.Name, f.Value)
	}
	j.note("%d %s %s %s%s %s", id, h.Method, h.Path, h.Host, fields, d.Verdict)
	return d
}

func (j *judge) Response(id uint64, a parsers.Answer) {
	line := fmt.Sprintf("%d %d", id, a.Status)
	if a.Local {
		line += " local"
	}
	if a.Call != nil {
		line += fmt.Sprintf(" call %d sent %d received %d", a.Call.Status, a.Call.Sent, a.Call.Received)
	}
	if a.Reset != nil {
		line += " " + a.Reset.Error()
	}
	j.note("%s", line)
}

func (j *judge) Malformed(id uint64, from parsers.Side, err error) bool {
	j.note("%d %s %s", id, from, err)
	return j.pass
}

// wire writes what one side sends.
type wire struct {
	bytes.Buffer
	*http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
}

func newWire() *wire {
	w := &wire{}
	w.Framer = http2.NewFramer(&w.Buffer, nil)
	w.AllowIllegalWrites = true
	w.encoder = hpack.NewEncoder(&w.block)
	return w
}

// take returns what was written since the last time.
func (w *wire) take() string {
	s := w.String()
	w.Buffer.Reset()
	return s
}

// encode takes "name=value" fields, encoded with the dynamic table.
func (w *wire) encode(fields ...string) []byte {
	w.block.Reset()
	for _, f := range fields {
		n := strings.Index(f[1:], "=") + 1
		_ = w.encoder.WriteField(hpack.HeaderField{Name: f[:n], Value: f[n+1:]})
	}
	return bytes.Clone(w.block.Bytes())
}

func (w *wire) headers(id uint32, end bool, fields ...string) {
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: w.encode(fields...), EndStream: end, EndHeaders: true})
}

// request writes a request's head.
func (w *wire) request(id uint32, end bool, method, path string, fields ...string) {
	w.headers(id, end, append([]string{":method=" + method, ":scheme=http", ":path=" + path, ":authority=h"}, fields...)...)
}

// read renders frames, with header blocks decoded, one a line.
func read(b string) string {
	var out []string
	b = strings.TrimPrefix(b, Preface)
	fr := http2.NewFramer(nil, strings.NewReader(b))
	fr.SetMaxReadFrameSize(1<<24 - 1)
	var fields []string
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) { fields = append(fields, f.Name+"="+f.Value) })
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				out = append(out, err.Error())
			}
			return strings.Join(out, "\n")
		}
		h := f.Header()
		line := fmt.Sprintf("%s %d", h.Type, h.StreamID)
		block := func(fragment []byte, end bool) {
			if len(fragment) > 0 && fragment[0]&0xe0 == 0x20 {
				size, _ := tableUpdate(fragment)
				line += fmt.Sprintf(" (table %d)", size)
			}
			if _, err := decoder.Write(fragment); err != nil {
				line += " " + err.Error()
			}
			if end {
				if err := decoder.Close(); err != nil {
					line += " " + err.Error()
				}
				for _, f := range fields {
					if len(f) > 200 {
						f = fmt.Sprintf("%.9s... (%d bytes)", f, len(f))
					}
					line += " " + f
				}
				fields = nil
			}
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				line += " end"
			}
			block(f.HeaderBlockFragment(), f.HeadersEnded())
		case *http2.ContinuationFrame:
			block(f.HeaderBlockFragment(), f.HeadersEnded())
		case *http2.DataFrame:
			if f.StreamEnded() {
				line += " end"
			}
			line += fmt.Sprintf(" %d", len(f.Data()))
			if len(f.Data()) < 32 {
				line += fmt.Sprintf(" %q", f.Data())
			}
		case *http2.SettingsFrame:
			if f.IsAck() {
				line += " ack"
			}
			_ = f.ForeachSetting(func(s http2.Setting) error {
				line += fmt.Sprintf(" %s=%d", s.ID, s.Val)
				return nil
			})
		case *http2.RSTStreamFrame:
			line += " " + f.ErrCode.String()
		case *http2.GoAwayFrame:
			line += fmt.Sprintf(" %d %s", f.LastStreamID, f.ErrCode)
		case *http2.WindowUpdateFrame:
			line += fmt.Sprintf(" %d", f.Increment)
		case *http2.PingFrame:
			if f.IsAck() {
				line += " ack"
			}
		}
		out = append(out, line)
	}
}

// arrival is bytes from a side, or its end.
type arrival struct {
	from parsers.Side
	data string
}

const fin = "\x00FIN"

func v(data string) arrival { return arrival{parsers.Server, data} }

type outcome struct {
	server, client string
	log            string
	state          string
	session        *Session
	relay          *parsertest.Relay
}

func play(splits parsertest.Splits, j judge, limits Limits, script []arrival) outcome {
	s := New(&j, limits)
	r := parsertest.New(s)
	r.Splits = splits
	for _, a := range script {
		if a.data == fin {
			r.CloseWrite(a.from)
		} else {
			r.Write(a.from, []byte(a.data))
		}
	}
	return outcome{
		server: string(r.Out[parsers.Server]), client: string(r.Out[parsers.Client]), log: strings.Join(j.log, "\n"),
		state: fmt.Sprintf("closed=%v err=%v fin=%v", r.Closed, r.Err, r.FIN), session: s, relay: r,
	}
}

// playAll plays the script whole, byte by byte and in random pieces, and fails
// when the outcome is not the same.
func playAll(t testing.TB, j judge, limits Limits, script ...arrival) outcome {
	t.Helper()
	whole := play(parsertest.Whole, j, limits, script)
	same := func(name string, o outcome) {
		t.Helper()
		if o.server != whole.server || o.client != whole.client || o.log != whole.log || o.state != whole.state {
			t.Fatalf("%s differs from whole\nserver\n%s\n   not\n%s\nclient\n%s\n   not\n%s\nlog\n%s\n   not\n%s\nstate %s\n   not %s", name,
				read(o.server), read(whole.server), read(o.client), read(whole.client), o.log, whole.log, o.state, whole.state)
		}
	}
	same("bytewise", play(parsertest.Bytewise, j, limits, script))
	for range 4 {
		seed := rand.Uint64()
		same(fmt.Sprintf("seed %d", seed), play(parsertest.Random(seed), j, limits, script))
	}
	return whole
}

// talk is a connection on which SETTINGS were exchanged.
type talk struct {
	client, server *wire
	script         []arrival
}

func newTalk(client, server []http2.Setting) *talk {
	t := &talk{client: newWire(), server: newWire()}
	_, _ = t.client.WriteString(Preface)
	_ = t.client.WriteSettings(client...)
	t.flush()
	_ = t.server.WriteSettings(server...)
	_ = t.server.WriteSettingsAck()
	t.flush()
	_ = t.client.WriteSettingsAck()
	return t
}

// flush lets arrive what was written.
func (t *talk) flush() *talk {
	if s := t.client.take(); s != "" {
		t.script = append(t.script, arrival{parsers.Client, s})
	}
	if s := t.server.take(); s != "" {
		t.script = append(t.script, arrival{parsers.Server, s})
	}
	return t
}
