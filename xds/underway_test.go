package xds

import (
	"log/slog"
	"testing"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// lastingBackend has rules in force, and keeps what it reports.
func lastingBackend(t *testing.T) (b *Backend, enforce func(*policy.L7Set), reported *[]observe.Record) {
	t.Helper()
	reported = &[]observe.Record{}
	b = &Backend{log: slog.New(slog.DiscardHandler), config: Config{Records: func(r []observe.Record) { *reported = append(*reported, r...) }}}
	return b, func(set *policy.L7Set) {
		t.Helper()
		set.Protocol = policy.ProtocolHTTP
		p, err := programOf(set, options{})
		if err != nil {
			t.Fatal(err)
		}
		b.inUse.Store(&map[redirect.SetNumber]*program{number: p})
		b.judgeUnderway()
	}, reported
}

// periodic is what Envoy tells of a request that is under way; of its head only if the
// script kept that.
func periodic(t testing.TB, head ...any) *datav3.HTTPAccessLogEntry {
	t.Helper()
	var kept map[string]any
	if len(head) > 0 {
		kept = map[string]any{"head": head}
	}
	e := logged(t, 200, "via_upstream", nil, kept)
	e.CommonProperties.AccessLogType = datav3.AccessLogType_DownstreamPeriodic
	e.ProtocolVersion = datav3.HTTPAccessLogEntry_HTTP2
	e.Request.Path = "/up"
	return e
}

var byToken = []policy.HeaderRule{{Name: "X-Token", Value: "a"}}

// TestLastingIsJudgedAgain: by the rules in force, whenever they change. Whose headers are
// not known must be allowed whatever they are.
func TestLastingIsJudgedAgain(t *testing.T) {
	head := []any{":method=PURGE", ":path=/up", ":authority=h", "x-token=a"}
	for name, tt := range map[string]struct {
		head []any
		set  policy.L7Set
		ends bool
	}{
		"still allowed":                       {nil, policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/x"}, {Path: "/u.*"}}}, false},
		"no rule is left":                     {nil, policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/x"}}}, true},
		"another asks for headers":            {nil, policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/x", Headers: byToken}, {Path: "/up"}}}, false},
		"by a header that is kept":            {head, policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/up", Headers: byToken}}}, false},
		"by a header that is not kept":        {nil, policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/up", Headers: byToken}}}, true},
		"denied":                              {nil, policy.L7Set{HTTP: []policy.HTTPRule{{}}, Deny: &policy.L7Rules{HTTP: []policy.HTTPRule{{Path: "/up"}}}}, true},
		"denied by a header that is not kept": {nil, policy.L7Set{HTTP: []policy.HTTPRule{{}}, Deny: &policy.L7Rules{HTTP: []policy.HTTPRule{{Path: "/up", Headers: byToken}}}}, true},
		"others are denied by a header":       {nil, policy.L7Set{HTTP: []policy.HTTPRule{{}}, Deny: &policy.L7Rules{HTTP: []policy.HTTPRule{{Path: "/x", Headers: byToken}}}}, false},
		"denied by another value":             {head, policy.L7Set{HTTP: []policy.HTTPRule{{}}, Deny: &policy.L7Rules{HTTP: []policy.HTTPRule{{Path: "/up", Headers: []policy.HeaderRule{{Name: "X-Token", Value: "b"}}}}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b, enforce, reported := lastingBackend(t)
			enforce(&policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/up"}}})
			if got := b.told(pair{ingress: number}, periodic(t, tt.head...)); len(got) != 0 || len(b.underway.all) != 1 {
				t.Fatalf("told %v, under way %v", got, b.underway.all)
			}
			if tt.set.Deny != nil {
				tt.set.Deny.Protocol = policy.ProtocolHTTP
			}
			enforce(&tt.set)
			enforce(&tt.set) // it is told of once
			if ends := len(*reported) > 0; ends != tt.ends || len(*reported) > 1 {
				t.Fatalf("it ends: %v, want %v: %+v", ends, tt.ends, *reported)
			}
			if tt.ends && ((*reported)[0].Word != observe.Dropped || (*reported)[0].HTTP.URL != "http://h/up") {
				t.Errorf("reported %+v", (*reported)[0])
			}
			end := periodic(t, tt.head...)
			end.CommonProperties.AccessLogType = datav3.AccessLogType_DownstreamEnd
			if got := b.told(pair{ingress: number}, end); len(got) != 2 || len(b.underway.all) != 0 {
				t.Errorf("at its end %v are told, and %v under way", got, b.underway.all)
			}
		})
	}
}

// TestWhatDoesNotLast: requests of HTTP/1 have their answers, listeners of policies no
// rules; what is not told of any more has ended.
func TestWhatDoesNotLast(t *testing.T) {
	b, enforce, reported := lastingBackend(t)
	enforce(&policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/none"}}})
	first := periodic(t)
	first.ProtocolVersion = datav3.HTTPAccessLogEntry_HTTP11
	b.told(pair{ingress: number}, first)
	listener := redirect.SetNumber(uint32(policy.ProtocolListener)<<24 | 1)
	b.told(pair{egress: listener}, periodic(t))
	if len(b.underway.all) != 0 || len(*reported) != 0 {
		t.Errorf("under way %v, reported %v", b.underway.all, *reported)
	}
	enforce(&policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/up"}}})
	b.told(pair{ingress: number}, periodic(t))
	for _, x := range b.underway.all {
		x.heard = time.Now().Add(-2 * goneAfter)
	}
	enforce(&policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/none"}}})
	if len(b.underway.all) != 0 || len(*reported) != 0 {
		t.Errorf("under way %v, reported %v", b.underway.all, *reported)
	}
}

// TestFirstRulesJudge: an agent that has no rules yet ends nothing of what Envoy tells it; the
// first that are in force do.
func TestFirstRulesJudge(t *testing.T) {
	b, enforce, reported := lastingBackend(t)
	b.told(pair{ingress: number}, periodic(t))
	if len(b.underway.all) != 1 || len(*reported) != 0 {
		t.Fatalf("under way %v, reported %v", b.underway.all, *reported)
	}
	enforce(&policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/up"}}})
	if len(*reported) != 0 {
		t.Errorf("what is allowed ends: %v", *reported)
	}
	enforce(&policy.L7Set{HTTP: []policy.HTTPRule{{Path: "/none"}}})
	if len(*reported) != 1 {
		t.Errorf("what is denied goes on: %v", *reported)
	}
}

// BenchmarkTold is what it costs to hear of a stream that lasts, every tellInterval.
func BenchmarkTold(b *testing.B) {
	backend := &Backend{log: slog.New(slog.DiscardHandler)}
	made, err := programOf(&policy.L7Set{Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{{Path: "/up"}}}, options{})
	if err != nil {
		b.Fatal(err)
	}
	backend.inUse.Store(&map[redirect.SetNumber]*program{number: made})
	e := periodic(b)
	for b.Loop() {
		backend.told(pair{ingress: number}, e)
	}
}
