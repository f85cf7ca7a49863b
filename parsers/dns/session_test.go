package dns

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	oracle "github.com/miekg/dns"

	"github.com/headgate/headgate/parsers"
)

// hooks deny what contains "denied", hold what contains "held", and fail to learn what
// contains "lost".
type hooks struct {
	log      []string
	pass     bool
	names    map[uint64]string
	unpaired int
}

func (h *hooks) Question(id uint64, m *Message) (bool, uint16) {
	name := string(m.AppendName(nil))
	h.names[id] = name
	h.log = append(h.log, fmt.Sprintf("ask %s", name))
	return !strings.Contains(name, "denied"), Refused
}

func (h *hooks) Unreadable(from parsers.Side, err error) bool {
	h.log = append(h.log, fmt.Sprintf("unreadable from %s", from))
	return h.pass && from == parsers.Client
}

func (h *hooks) Answer(id uint64, _ *Message, f *Found) bool {
	h.log = append(h.log, fmt.Sprintf("answer %s %d", h.names[id], len(f.Records)))
	return !strings.Contains(h.names[id], "held")
}

func (h *hooks) Outcome(id uint64) error {
	if strings.Contains(h.names[id], "lost") {
		return errors.New("lost")
	}
	return nil
}

func (h *hooks) Unmatched() { h.unpaired++ }
func (h *hooks) Full()      { h.log = append(h.log, "full") }
func (h *hooks) Closed()    {}

// wire is a relay: what came of each side, and what each side gets.
type wire struct {
	s    *Session
	in   [2][]byte
	out  [2][]byte
	held [2]bool
	err  error
}

func (w *wire) feed(from parsers.Side, b []byte) {
	w.in[from] = append(w.in[from], b...)
	for w.err == nil && !w.held[from] {
		steps, err := w.s.Feed(from, w.in[from], false)
		w.err = err
		if len(steps) == 0 {
			return
		}
		for _, st := range steps {
			switch st.Op {
			case parsers.Forward:
				n := min(int(min(st.N, 1<<30)), len(w.in[from]))
				w.out[from.Peer()] = append(w.out[from.Peer()], w.in[from][:n]...)
				w.in[from] = w.in[from][n:]
			case parsers.Discard:
				w.in[from] = w.in[from][st.N:]
			case parsers.Send:
				w.out[st.To] = append(w.out[st.To], st.Data...)
			case parsers.Hold:
				w.held[from] = true
			}
		}
		if len(w.in[from]) == 0 {
			return
		}
	}
}

func (w *wire) release(side parsers.Side) {
	w.s.Release(0)
	w.held[side] = false
	w.feed(side, nil)
}

func framed(t *testing.T, messages ...*oracle.Msg) []byte {
	var b []byte
	for _, m := range messages {
		p := pack(t, m)
		b = append(append(b, byte(len(p)>>8), byte(len(p))), p...)
	}
	return b
}

// read takes framed messages apart: "name rcode addresses".
func read(t *testing.T, b []byte) string {
	t.Helper()
	var out []string
	for len(b) >= 2 {
		n := int(b[0])<<8 | int(b[1])
		var m oracle.Msg
		if err := m.Unpack(b[2 : 2+n]); err != nil {
			t.Fatal(err)
		}
		text := strings.TrimSuffix(m.Question[0].Name, ".")
		if m.Response {
			text += fmt.Sprintf(" %s %d", oracle.RcodeToString[m.Rcode], len(m.Answer))
		}
		out = append(out, text)
		b = b[2+n:]
	}
	return strings.Join(out, ", ")
}

func TestSession(t *testing.T) {
	var questions, answers []*oracle.Msg
	for _, name := range []string{"a.", "Denied.", "held.", "held-lost.", "z."} {
		q := question(name, oracle.TypeA)
		questions = append(questions, q)
		if name != "Denied." {
			a := answer(t, name, 1, name+" 60 A 192.0.2.1")
			a.Id = q.Id
			answers = append(answers, a)
		}
	}
	forged := answers[0].Copy()
	forged.Id++
	circle := answer(t, "z.", 1, "z. 60 CNAME z.")
	circle.Id = answers[3].Id
	for _, step := range []int{1, 7, 1 << 20} {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			h := &hooks{names: map[uint64]string{}}
			w := &wire{s: New(h, time.Second)}
			feed := func(from parsers.Side, b []byte) {
				for len(b) > 0 {
					n := min(step, len(b))
					w.feed(from, b[:n])
					b = b[n:]
				}
			}
			feed(parsers.Client, framed(t, questions...))
			if got := read(t, w.out[parsers.Server]); got != "a, held, held-lost, z" {
				t.Errorf("the server gets %s", got)
			}
			feed(parsers.Server, framed(t, forged, circle, answers[1], answers[0], answers[2], answers[3], answers[3]))
			if got := read(t, w.out[parsers.Client]); got != "Denied REFUSED 0" {
				t.Errorf("before the release: the client gets %s", got)
			}
			w.release(parsers.Server)
			if got := read(t, w.out[parsers.Client]); got != "Denied REFUSED 0, held NOERROR 1, a NOERROR 1" {
				t.Errorf("after one release: the client gets %s", got)
			}
			w.release(parsers.Server)
			if got := read(t, w.out[parsers.Client]); got != "Denied REFUSED 0, held NOERROR 1, a NOERROR 1, held-lost SERVFAIL 0, z NOERROR 1" {
				t.Errorf("at the end: the client gets %s", got)
			}
			if w.err != nil || h.unpaired != 2 || w.s.Phase() != parsers.Idle {
				t.Errorf("%v, %d answers to nothing, phase %d: %v", w.err, h.unpaired, w.s.Phase(), h.log)
			}
		})
	}
}

func TestSessionRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"a tiny message": {0, 3, 1, 2, 3}, "an answer": framed(t, answer(t, "a.", 1)), "HTTP": []byte("GET / HTTP/1.1\r\n" + strings.Repeat("x", 20000)),
	} {
		for _, pass := range []bool{false, true} {
			h := &hooks{names: map[uint64]string{}, pass: pass}
			w := &wire{s: New(h, time.Second)}
			w.feed(parsers.Client, b)
			if name == "HTTP" && w.err == nil && len(w.out[parsers.Server]) == 0 {
				continue // it could still become a message
			}
			if (w.err == nil) != pass || (len(w.out[parsers.Server]) > 0) != pass {
				t.Errorf("%s, pass %v: %v, the server gets %d bytes", name, pass, w.err, len(w.out[parsers.Server]))
			}
		}
	}
	h := &hooks{names: map[uint64]string{}}
	w := &wire{s: New(h, time.Second)}
	w.feed(parsers.Client, framed(t, question("a.", 1), question("b.", 1)))
	if got := read(t, w.s.Unavailable()); got != "a SERVFAIL 0, b SERVFAIL 0" {
		t.Errorf("without a server: %s", got)
	}
}

// A question that would take too much room is refused, and not asked about.
func TestSessionRoom(t *testing.T) {
	h := &hooks{names: map[uint64]string{}}
	w := &wire{s: New(h, time.Second)}
	long := question("long.", oracle.TypeA)
	long.SetEdns0(1232, false)
	long.IsEdns0().Option = append(long.IsEdns0().Option, &oracle.EDNS0_PADDING{Padding: make([]byte, MaxQuestion)})
	w.feed(parsers.Client, framed(t, long))
	for range maxWaiting + 2 {
		w.feed(parsers.Client, framed(t, question("a.", oracle.TypeA)))
	}
	if got := read(t, w.out[parsers.Client]); w.err != nil || got != "long REFUSED 0, a REFUSED 0, a REFUSED 0" {
		t.Errorf("the client gets %s, %v", got, w.err)
	}
	if len(h.log) != maxWaiting+3 || h.log[0] != "full" || h.log[maxWaiting+1] != "full" || len(h.names) != maxWaiting {
		t.Errorf("%d questions are judged", len(h.names))
	}
}
