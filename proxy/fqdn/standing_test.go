package fqdn

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// stand learns an answer, and says how it stands; false: it does not stand.
func (b *bench) stand(a Answer) (Standing, bool) {
	b.Helper()
	var st Standing
	if now, err := b.LearnNow(a, &st); !now || err != nil {
		b.Fatalf("learn %s: %v, %v", a.Name, now, err)
	}
	return st, st.Endpoint != 0
}

// answerFor is an answer whose addresses live for so long.
func (b *bench) answerFor(ttl time.Duration, name string, addrs ...string) Answer {
	a := b.answer("10.0.0.1", name, addrs...)
	for i := range a.Addresses {
		a.Addresses[i].TTL = ttl
	}
	return a
}

// An answer stands as long as all of its addresses do, and as what the datapath has them.
func TestStanding(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com"), rule(1, "shared.example.com")))
	in := func(d time.Duration) time.Time { return time.Unix(b.time.Now().Add(d).Unix()+2, 0) } // a second for what is rounded, and one of the grace
	for name, c := range map[string]struct {
		answer Answer
		until  time.Time // zero: it does not stand
		nobody bool      // no rule is about it
	}{
		"one":                        {b.answerFor(time.Minute, "a.example.com", "192.0.2.1"), in(time.Minute), false},
		"letters":                    {b.answerFor(time.Minute, "B.Example.COM.", "192.0.2.2"), in(time.Minute), false},
		"both versions":              {b.answerFor(time.Minute, "c.example.com", "192.0.2.3", "2001:db8::3"), in(time.Minute), false},
		"the least TTL":              {b.answerFor(0, "d.example.com", "192.0.2.4"), in(10 * time.Second), false},
		"the longest TTL":            {b.answerFor(1000*time.Hour, "e.example.com", "192.0.2.5"), in(maxTTL), false},
		"one that is nobody":         {b.answerFor(time.Minute, "f.example.com", "192.0.2.6", "127.0.0.1"), time.Time{}, false},
		"nobody":                     {b.answerFor(time.Minute, "g.example.com", "0.0.0.0"), time.Time{}, false},
		"no address":                 {b.answerFor(time.Minute, "h.example.com"), time.Time{}, false},
		"without rules":              {b.answerFor(time.Minute, "a.example.org", "192.0.2.7"), in(time.Minute), true},
		"no name":                    {b.answerFor(time.Minute, "a..example.com", "192.0.2.8"), time.Time{}, false},
		"the same address once more": {b.answerFor(time.Minute, "i.example.com", "192.0.2.9", "192.0.2.9"), in(time.Minute), false},
	} {
		st, stands := b.stand(c.answer)
		if stands != !c.until.IsZero() {
			t.Errorf("%s: stands %v", name, stands)
			continue
		}
		if !stands {
			continue
		}
		if st.Endpoint != 1 || !st.Until.Equal(c.until) || len(st.As) != len(c.answer.Addresses) {
			t.Errorf("%s: %+v, want until %s", name, st, c.until)
		}
		b.standsAsTheKernelHas(name, c.answer, st)
		for _, as := range st.As {
			if (as == 0) != c.nobody {
				t.Errorf("%s: known as %d", name, as)
			}
		}
	}
	stranger := b.answer("10.0.0.99", "a.example.com", "192.0.2.1")
	if _, stands := b.stand(stranger); stands {
		t.Error("who is no endpoint has been told")
	}
	first := b.answerFor(time.Minute, "j.example.com", "192.0.2.20", "192.0.2.21")
	b.stand(first)
	b.time.add(30 * time.Second)
	st, _ := b.stand(b.answerFor(time.Minute, "j.example.com", "192.0.2.21"))
	if want := in(time.Minute); !st.Until.Equal(want) {
		t.Errorf("one of two, learnt once more: until %s, want %s", st.Until, want)
	}
	if st, _ = b.stand(b.answerFor(10*time.Second, "j.example.com", "192.0.2.20", "192.0.2.21")); !st.Until.Equal(in(30 * time.Second)) {
		t.Errorf("both: until %s, which is longer than the first of them stays, %s", st.Until, in(30*time.Second))
	}
	was, _ := b.stand(b.answerFor(time.Minute, "k.example.com", "192.0.2.30"))
	as := was.As[0]
	other, _ := b.stand(b.answerFor(time.Minute, "shared.example.com", "192.0.2.30")) // another rule is about it too
	if b.has("192.0.2.30") == as || other.As[0] != b.has("192.0.2.30") {
		t.Error("an address that has another name stands as it did")
	}
	unruled, stands := b.stand(b.answerFor(time.Minute, "k.example.org", "192.0.2.30"))
	if !stands || unruled.As[0] != b.has("192.0.2.30") || unruled.As[0] == 0 {
		t.Errorf("a name without rules shares it: %+v", unruled)
	}
}

func (b *bench) has(addr string) policy.Identity {
	b.k.mu.Lock()
	defer b.k.mu.Unlock()
	return b.k.addrs[policy.NameKey{Endpoint: 1, Addr: netip.MustParseAddr(addr)}]
}

func (b *bench) standsAsTheKernelHas(what string, a Answer, st Standing) {
	b.Helper()
	for i, addr := range a.Addresses {
		if got := b.has(addr.Addr.String()); got != st.As[i] {
			b.Errorf("%s: %s is %d in the kernel, and %d is told", what, addr.Addr, got, st.As[i])
		}
	}
}

// What is not remembered for want of room stands for some time if no rule is about it, and
// not at all if one is.
func TestStandingWithoutRoom(t *testing.T) {
	b := newBench(t)
	n := twoEndpoints(rule(0, "*.example.com"))
	n.Limits = redirect.NameLimits{PerName: 2, PerEndpoint: 3}
	b.update(n)
	ruled := b.answerFor(time.Minute, "a.example.com", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
	var st Standing
	if now, err := b.LearnNow(ruled, &st); !now || !errors.Is(err, ErrShare) || st.Endpoint != 0 {
		t.Errorf("%v, %v, %+v", now, err, st)
	}
	st, stands := b.stand(b.answerFor(time.Minute, "b.example.org", "198.51.100.1", "192.0.2.1"))
	want := b.time.Now().Add(time.Minute + unknownFor)
	if !stands || !st.Until.Equal(want) || len(st.As) != 2 || st.As[0] != 0 || st.As[1] == 0 || st.As[1] != b.has("192.0.2.1") {
		t.Errorf("no rule is about it: %+v, want until %s", st, want)
	}
}

// The last answer that the gate repeats counts for the least TTL too.
func TestStandingCountsForTheLeastTTL(t *testing.T) {
	for _, c := range []struct{ least, grace, ttl, lasts time.Duration }{
		{10 * time.Second, 10 * time.Second, 5 * time.Second, 11 * time.Second},
		{time.Second, time.Second, 5 * time.Second, 5500 * time.Millisecond},
		{time.Hour, 10 * time.Second, 5 * time.Second, time.Hour + time.Second},
		{time.Minute, 2 * time.Hour, time.Hour, time.Hour + time.Second},
	} {
		b := newBench(t)
		n := twoEndpoints(rule(0, "*.example.com"))
		n.Limits = redirect.NameLimits{MinTTL: c.least, Grace: c.grace}
		b.update(n)
		st, stands := b.stand(b.answerFor(c.ttl, "a.example.com", "192.0.2.1"))
		if lasts := st.Until.Sub(b.time.Now()) - time.Second; !stands || lasts != c.lasts || st.Floor != c.least {
			t.Errorf("%+v: lasts %s, an answer at least %s", c, lasts, st.Floor)
		}
		b.time.add(st.Until.Sub(b.time.Now())) // the last that may be repeated has counted for its TTL, and the least
		b.clean()
		if b.has("192.0.2.1") == 0 {
			t.Errorf("%+v: the address has left before that was over", c)
		}
	}
}

// promise is what the gate was told of an answer, in a round.
type promise struct {
	Standing
	answer Answer
	round  int
}

// TestStandingProperty changes names, policies and time at random. Whatever the gate would
// still let through is what answering once more would: its addresses are in the kernel as the
// rules say, and stay until it is over.
func TestStandingProperty(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: go test -run %s -seed %d", t.Name(), seed)
	told := 0
	for round := range uint64(30) {
		if told += standingRound(t, rand.New(rand.NewPCG(seed, round))); t.Failed() {
			t.Logf("in round %d", round)
			return
		}
	}
	if told < 500 {
		t.Errorf("%d answers would have gone on: too few to say anything", told)
	}
}

func standingRound(t *testing.T, r *rand.Rand) (would int) {
	b := newBench(t)
	defer b.stop()
	names := []string{"a.example.com", "b.example.com", "a.example.org", "x.y.example.org", "example.net"}
	addrs := []string{"192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1"}
	selectors := []string{"a.example.com", "*.example.com", "**.example.org", "b.example.com", "*b*.example.com"}
	limits := redirect.NameLimits{PerName: 2 + r.IntN(3), PerEndpoint: 3 + r.IntN(3)}
	round, table := 0, uint32(1)
	change := func() {
		rules := randomRules(r, selectors, true)
		n := twoEndpoints(rules...)
		nt := n.Tables[1]
		n.Tables, n.Limits = map[uint32]*policy.NameTable{}, limits
		for i := range n.Endpoints {
			if n.Endpoints[i].Table = table; nt == nil {
				n.Endpoints[i].Table = 0
			}
		}
		if nt != nil {
			n.Tables[table] = nt
		}
		for i := range rules {
			n.Rules[rules[i].Ref] = uint32(i + 1)
		}
		b.update(n)
		round, table = round+1, table+1
	}
	change()
	var promises []promise
	for range 60 {
		switch r.IntN(8) {
		case 0:
			change()
		case 1, 2:
			b.time.add(time.Duration(r.IntN(8000)) * time.Millisecond)
			b.clean()
		default:
			name := names[r.IntN(len(names))]
			a := b.answerFor(time.Duration(r.IntN(20))*time.Second, name, addrs[r.IntN(len(addrs))])
			if r.IntN(2) == 0 {
				a.Addresses = append(a.Addresses, Address{netip.MustParseAddr(addrs[r.IntN(len(addrs))]), 7 * time.Second})
			}
			var st Standing
			if now, err := b.LearnNow(a, &st); now && err == nil && st.Endpoint != 0 {
				promises = append(promises, promise{st, a, round})
			}
		}
		for _, p := range promises {
			if p.round != round || !b.time.Now().Before(p.Until) || !b.isAsTold(p) {
				continue
			}
			would++
			b.mayBeRepeated(p)
		}
	}
	return would
}

// isAsTold asks the kernel as the gate does.
func (b *bench) isAsTold(p promise) bool {
	for i, a := range p.answer.Addresses {
		if b.has(a.Addr.String()) != p.As[i] {
			return false
		}
	}
	return true
}

// mayBeRepeated wants that to answer once more would change nothing, and that nothing of it is
// about to leave.
func (b *bench) mayBeRepeated(p promise) {
	b.Helper()
	b.lock()
	defer b.unlock()
	h := b.hosts[p.Endpoint]
	pick := b.pickOf(policy.NormalName(p.answer.Name))
	for i, a := range p.answer.Addresses {
		raw := a.Addr.As16()
		have, ok := h.holds[raw]
		what := fmt.Sprintf("%s of %s", a.Addr, p.answer.Name)
		if pick == b.none { // what it is known as comes from others
			if want := (policy.Identity)(0); !ok && p.As[i] != want {
				b.Errorf("%s, which no rule is about, is %d in the kernel", what, p.As[i])
			}
			continue
		}
		if !ok || b.identify(a.Addr, &have) != p.As[i] {
			b.Errorf("%s stands as %d, and the rules say otherwise", what, p.As[i])
			continue
		}
		if e := h.known[policy.NormalName(p.answer.Name)]; e != nil {
			for _, l := range e.addrs {
				if l.addr == raw && int64(l.expires)+int64(b.limits.Grace/time.Second) < p.Until.Unix() {
					b.Errorf("%s leaves at %d, and is told until %s", what, l.expires, p.Until)
				}
			}
		}
	}
}
