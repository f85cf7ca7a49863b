package http

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

// judge denies what has "deny" in its path and remembers what it saw.
type judge struct {
	log       []string
	requests  []judged // allowed ones
	responses []answered
	pass      bool // what cannot be read goes on
	edits     []policy.HTTPHeader
	response  *policy.DenyResponse
	tunnelled bool
}

type judged struct {
	id                 uint64
	method, path, host string
	headers            int
}

type answered struct {
	id uint64
	parsers.Answer
}

func (j *judge) Request(id uint64, r policy.Request) policy.Decision {
	h := r.(*policy.HTTPRequest)
	d := policy.Decision{Verdict: policy.Redirect}
	if strings.Contains(string(h.Path), "deny") {
		d.Verdict, d.Response = policy.Deny, j.response
	} else {
		j.requests = append(j.requests, judged{id, string(h.Method), string(h.Path), string(h.Host), len(h.Headers)})
	}
	j.log = append(j.log, fmt.Sprintf("%d %s %s %s %s", id, h.Method, h.Path, h.Host, d.Verdict))
	if d.Edited = j.edits != nil; d.Edited {
		d.Headers = j.edits
	}
	return d
}

func (j *judge) Response(id uint64, r parsers.Answer) {
	j.responses = append(j.responses, answered{id, r})
	if n := len(j.requests); n > 0 && j.requests[n-1].id == id {
		j.tunnelled = r.Status == 101 || r.Status/100 == 2 && j.requests[n-1].method == "CONNECT"
	}
	local := ""
	if r.Local {
		local = " local"
	}
	j.log = append(j.log, fmt.Sprintf("%d %d%s", id, r.Status, local))
}

func (j *judge) Malformed(id uint64, from parsers.Side, err error) bool {
	j.log = append(j.log, fmt.Sprintf("%d %s %s", id, from, err))
	return j.pass
}

// arrival is bytes from a side, or its end.
type arrival struct {
	from parsers.Side
	data string
}

const (
	fin   = "\x00FIN"
	later = "\x00later" // nothing, for a long time
)

func c(data string) arrival { return arrival{parsers.Client, data} }
func v(data string) arrival { return arrival{parsers.Server, data} }

type outcome struct {
	server, client string
	log            string
	state          string
	judge          *judge
	relay          *parsertest.Relay
}

func play(splits parsertest.Splits, limits Limits, script ...arrival) outcome {
	return playFor(&judge{}, splits, limits, script...)
}

func playFor(j *judge, splits parsertest.Splits, limits Limits, script ...arrival) outcome {
	s := New(j, limits)
	r := parsertest.New(s)
	r.Splits = splits
	for _, a := range script {
		switch a.data {
		case fin:
			r.CloseWrite(a.from)
		case later:
			r.Elapse()
		default:
			r.Write(a.from, []byte(a.data))
		}
	}
	o := outcome{server: string(r.Out[parsers.Server]), client: string(r.Out[parsers.Client]), log: strings.Join(j.log, "\n"), judge: j, relay: r}
	o.state = fmt.Sprintf("closed=%v err=%v fin=%v", r.Closed, r.Err, r.FIN)
	return o
}

// playAll plays the script whole, byte by byte and in random pieces, and fails
// when the outcome is not the same.
func playAll(t testing.TB, limits Limits, script ...arrival) outcome {
	t.Helper()
	return playAllFor(t, judge{}, limits, script...)
}

func playAllFor(t testing.TB, j judge, limits Limits, script ...arrival) outcome {
	t.Helper()
	play := func(splits parsertest.Splits, limits Limits, script ...arrival) outcome {
		fresh := j
		return playFor(&fresh, splits, limits, script...)
	}
	whole := play(parsertest.Whole, limits, script...)
	same := func(name string, o outcome) {
		t.Helper()
		if o.server != whole.server || o.client != whole.client || o.log != whole.log || o.state != whole.state {
			t.Fatalf("%s differs from whole\nserver %q\n   not %q\nclient %q\n   not %q\nlog\n%s\n   not\n%s\nstate %s\n   not %s", name,
				o.server, whole.server, o.client, whole.client, o.log, whole.log, o.state, whole.state)
		}
	}
	same("bytewise", play(parsertest.Bytewise, limits, script...))
	for range 8 {
		seed := rand.Uint64()
		same(fmt.Sprintf("seed %d", seed), play(parsertest.Random(seed), limits, script...))
	}
	return whole
}
