package xds

import (
	"errors"
	"maps"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// Envoy judges a request once, when it comes. Of what lasts, a tunnel or a stream of HTTP/2,
// it tells from time to time, so that an agent that comes later knows of it too. Whenever
// rules change, all that is judged again here, and the kernel closes the socket of what is
// denied: no stock filter could end a stream of its own accord, so with it end the others
// on its connection.

// tellInterval is how often Envoy tells of what is under way, and so how old a request may
// become that a change forbids.
const tellInterval = time.Second

// A socket that is not found may have ended just now, and the entry that says so be on its
// way, which takes no lateMost. What Envoy has not told of for goneAfter has ended, and the
// entry was lost.
const (
	lateMost  = 5 * time.Second
	goneAfter = 30 * time.Second
)

// underway is what lasts.
type underway struct {
	mu  sync.Mutex
	all map[exchangeKey]*exchange
	cut map[connection]time.Time // the sockets that were closed of late
}

type connection struct{ source, destination netip.AddrPort }

// exchangeKey tells exchanges apart; HTTP/2 has several on a connection.
type exchangeKey struct {
	connection
	began  int64
	target string // streams that came in one packet began together
}

// exchange is a tunnel, a request that lasts, or a connection that is carried unread.
type exchange struct {
	pair    pair
	request *policy.HTTPRequest // nil: what is carried is not read
	hello   *policy.TLSRequest  // that its connection began with; nil: it is plain text
	partial bool                // of its headers only the content type is known
	record  observe.Record      // of its request
	closed  bool

	heard     time.Time   // when Envoy told of it last
	judgedBy  [2]*program // that allowed it
	destroyed bool        // its socket
	missing   time.Time   // since when its socket has not been found
}

// outlives reports whether an exchange goes on that should not, by what came of destroying
// its socket. One that is not found may have ended with another on the same connection.
func (x *exchange) outlives(err error, now time.Time) bool {
	switch {
	case err == nil:
		x.destroyed = true
		return false
	case !errors.Is(err, unix.ENOENT):
		return true
	case x.destroyed:
		return false
	case x.missing.IsZero():
		x.missing = now
	}
	return now.Sub(x.missing) >= lateMost
}

// goesOn remembers an exchange, and judges it: rules may have changed since Envoy did.
func (b *Backend) goesOn(key exchangeKey, x *exchange) {
	u := &b.underway
	u.mu.Lock()
	if u.all == nil {
		u.all = map[exchangeKey]*exchange{}
	}
	if known := u.all[key]; known != nil {
		x = known
	} else {
		u.all[key] = x
	}
	x.heard = time.Now()
	u.mu.Unlock()
	b.judgeAgain(key, x)
}

// over forgets an exchange, and reports whether its connection was closed by us.
func (u *underway) over(key exchangeKey) (cut bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.all, key)
	_, cut = u.cut[key.connection]
	return cut
}

// lasting are the exchanges that go on.
func (u *underway) lasting(now time.Time) map[exchangeKey]*exchange {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.all, func(_ exchangeKey, x *exchange) bool { return now.Sub(x.heard) > goneAfter })
	return maps.Clone(u.all)
}

// judgeUnderway ends what the rules in force deny.
func (b *Backend) judgeUnderway() {
	for key, x := range b.underway.lasting(time.Now()) {
		b.judgeAgain(key, x)
	}
}

func (b *Backend) judgeAgain(key exchangeKey, x *exchange) {
	if b.inUse.Load() == nil { // we have just started: the first rules that are in force judge it
		return
	}
	by := [2]*program{b.program(x.pair.egress), b.program(x.pair.ingress)}
	b.underway.mu.Lock()
	same := x.judgedBy == by && by != [2]*program{}
	b.underway.mu.Unlock()
	if same {
		return
	}
	d, direction := b.judgeExchange(x)
	if d.Verdict == policy.Allow {
		b.underway.mu.Lock()
		x.judgedBy = by
		b.underway.mu.Unlock()
		return
	}
	err := destroySocket(key.destination, key.source)
	told, outlives := b.underway.ended(key.connection, x, err, time.Now())
	if outlives {
		b.log.Error("close what is denied now; its ends must be restarted", "from", key.source, "to", key.destination, "error", err)
	}
	if told {
		return
	}
	r := x.record
	r.Time, r.Word, r.Reason, r.Direction = time.Now(), observe.Dropped, observe.ReasonPolicyDenied, direction
	r.Rule, r.Nearest, r.Detail = d.Rule, d.Nearest, d.Reason
	b.report([]observe.Record{r})
}

// ended notes what came of destroying the socket of an exchange.
func (u *underway) ended(c connection, x *exchange, err error, now time.Time) (told, outlives bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		maps.DeleteFunc(u.cut, func(_ connection, at time.Time) bool { return now.Sub(at) > lateMost })
		if u.cut == nil {
			u.cut = map[connection]time.Time{}
		}
		u.cut[c] = now
	}
	told, x.closed = x.closed, true
	return told, x.outlives(err, now)
}

// judge judges a request of a pair by the rules in force, as Envoy would: egress first,
// then ingress, about the request as egress lets it go on. One that is known in part must
// be allowed whatever the rest of it is.
func (b *Backend) judge(p pair, r *policy.HTTPRequest, partial bool) (policy.Decision, policy.Direction) {
	d := policy.Decision{Verdict: policy.Allow}
	for _, direction := range []policy.Direction{policy.Egress, policy.Ingress} {
		n := p.in(direction)
		if n == 0 {
			continue
		}
		program := b.program(n)
		if program == nil || program.judge == nil {
			return policy.Decision{Reason: "its rules are not in force any more"}, direction
		}
		if program.audit {
			continue
		}
		judge := program.judge
		if partial {
			judge = program.cautious()
		}
		if d = judge.Decide(r); d.Verdict != policy.Allow {
			return d, direction
		}
		if d.Edited {
			r = &policy.HTTPRequest{Method: r.Method, Path: r.Path, Host: r.Host, Headers: d.Headers}
		}
	}
	return policy.Decision{Verdict: policy.Allow}, policy.Ingress
}
