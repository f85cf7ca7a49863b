package bpf

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/headgate/headgate/policy"
)

var (
	somePeers = []policy.Identity{0, 5, identityB}
	somePorts = []uint16{0, 1, 2, 3, 4, 7, 8, 15, 80, 0x7fff, 0x8000, 0xffff}
)

// randomTable has few keys, so that tables meet, nest and shadow one another. Each
// entry has a number of its own.
func randomTable(r *rand.Rand, number uint32) PolicyTable {
	t := PolicyTable{}
	bits := []uint8{0, 1, 12, 13, 14, 15, 16}
	for range r.IntN(25) {
		k := policy.Key{Peer: somePeers[r.IntN(len(somePeers))], Direction: policy.Direction(r.IntN(2))}
		if r.IntN(4) > 0 {
			k.Proto = []policy.Proto{policy.ProtoTCP, policy.ProtoUDP}[r.IntN(2)]
			k.PrefixBits = bits[r.IntN(len(bits))]
			k.Port = uint16(uint32(somePorts[r.IntN(len(somePorts))]) >> (16 - k.PrefixBits) << (16 - k.PrefixBits))
		}
		number++
		t[k] = PolicyEntry{Verdict: policy.Verdict(r.IntN(2)), Rule: number}
	}
	return t
}

// table is the same as people's side of the policy reads it.
func (t PolicyTable) table() *policy.Table {
	out := &policy.Table{Entries: map[policy.Key]policy.Entry{}}
	for k, e := range t {
		out.Entries[k] = policy.Entry{Verdict: e.Verdict, Rule: policy.RuleID(e.Rule)}
	}
	return out
}

// Writes the same changes in the same order to a table in memory, and asks at
// every step for every connection: it must be judged by the old or by the new
// table, never by a mixture.
func TestEveryStepIsOldOrNew(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	for range 400 {
		old, want := randomTable(r, 0), randomTable(r, 1000)
		for k, e := range old { // some stay as they are
			if r.IntN(3) == 0 {
				want[k] = e
			}
		}
		before, after, now := old.table(), want.table(), old.table()
		check := func(step string, k policy.Key) {
			for _, peer := range somePeers[1:] {
				for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
					for _, proto := range []policy.Proto{policy.ProtoTCP, policy.ProtoUDP} {
						for _, port := range somePorts {
							is := now.Lookup(peer, d, proto, port)
							if is != before.Lookup(peer, d, proto, port) && is != after.Lookup(peer, d, proto, port) {
								t.Fatalf("%s %+v: peer %d %s proto %d port %d is judged by %+v\nold %v\nwant %v",
									step, k, peer, d, proto, port, is, old, want)
							}
						}
					}
				}
			}
		}
		var put, drop []policy.Key
		for k, e := range want {
			if o, ok := old[k]; !ok || o != e {
				put = append(put, k)
			}
		}
		for k := range old {
			if _, ok := want[k]; !ok {
				drop = append(drop, k)
			}
		}
		slices.SortFunc(put, bySpecificity)
		slices.SortFunc(drop, func(a, b policy.Key) int { return bySpecificity(b, a) })
		for _, k := range put {
			now.Entries[k] = after.Entries[k]
			check("after putting", k)
		}
		for _, k := range drop {
			delete(now.Entries, k)
			check("after removing", k)
		}
		if !maps.Equal(now.Entries, after.Entries) {
			t.Fatal("the steps do not lead to the new table")
		}
	}
}

func TestSyncPolicyArrives(t *testing.T) {
	l := newLab(t)
	r := rand.New(rand.NewPCG(5, 5))
	old := everything()
	for i := range 60 {
		want := randomTable(r, uint32(1000*i))
		l.must(l.g.SyncPolicy(subjectA, old, want))
		got, err := l.g.Policies()
		l.must(err)
		if !maps.Equal(got[subjectA], want) {
			t.Fatalf("in the kernel %v, want %v", got[subjectA], want)
		}
		if !maps.Equal(got[subjectB], everything()) {
			t.Fatal("another subject's table changed")
		}
		// The lengths that the gate tries are those of the table: it finds all.
		table := want.table()
		for _, port := range somePorts {
			f := l.tcp(false, uint16(r.Uint32()), port, syn)
			l.must(empty(l.g.objs.HgCtAny1))
			action := uint32(actionShot)
			if table.Lookup(identityB, policy.Egress, policy.ProtoTCP, port).Verdict == policy.Allow {
				action = actionSend
			}
			if got := l.sends(l.a, f); got.action != action {
				t.Errorf("port %d: action %d, want %d", port, got.action, action)
			}
		}
		old = want
	}
	l.must(l.g.DeletePolicy(subjectA, old))
	got, err := l.g.Policies()
	l.must(err)
	if _, ok := got[subjectA]; ok || len(got) != 1 {
		t.Errorf("after deletion: %v", got)
	}
}

// While tables are written another CPU judges: it sees the old or the new verdict. One
// that is interrupted between its look-ups, while several entries are written, may find
// neither, which denies. That is rare, and never the other way.
func TestSyncPolicyWhileJudging(t *testing.T) {
	l := newLab(t)
	r := rand.New(rand.NewPCG(8, 8))
	first, second := randomTable(r, 0), randomTable(r, 1000)
	before, after := first.table(), second.table()
	l.must(l.g.SyncPolicy(subjectA, everything(), first))
	done := make(chan error)
	go func() {
		var err error
		for range 3000 {
			if err = l.g.SyncPolicy(subjectA, first, second); err != nil {
				break
			}
			if err = l.g.SyncPolicy(subjectA, second, first); err != nil {
				break
			}
		}
		done <- err
	}()
	neither := 0
	for n := 0; ; n++ {
		select {
		case err := <-done:
			l.must(err)
			if neither > 2+n/1000 {
				t.Errorf("%d of %d judgements were of neither table", neither, n)
			}
			return
		default:
		}
		port := somePorts[n%len(somePorts)]
		f := l.udp(false, uint16(n), port)
		l.must(empty(l.g.objs.HgCtAny1)) // each is a new connection
		allowed := l.sends(l.a, f).action == actionSend
		one := before.Lookup(identityB, policy.Egress, policy.ProtoUDP, port).Verdict == policy.Allow
		two := after.Lookup(identityB, policy.Egress, policy.ProtoUDP, port).Verdict == policy.Allow
		switch {
		case allowed && !one && !two:
			t.Fatalf("port %d: allowed, but neither table says so", port)
		case !allowed && one && two:
			neither++
		}
	}
}

// Without room the subject is closed, and another sync opens it only when its
// table is whole.
func TestPolicyFull(t *testing.T) {
	l := newLab(t, func(o *Options) { o.MaxPolicy = 4096 })
	f := l.udp(false, 40000, 53)
	allowed := PolicyTable{egress(0, policy.ProtoUDP, 53, 16): allow(1)}
	l.reset(allowed, nil)
	tooMany := PolicyTable{egress(0, policy.ProtoUDP, 53, 16): deny(2)}
	for port := range uint16(8000) {
		tooMany[egress(identityB, policy.ProtoTCP, port, 16)] = allow(3)
	}
	if err := l.g.SyncPolicy(subjectA, allowed, tooMany); err == nil {
		t.Fatal("8001 entries found room where 4096 are")
	}
	l.dropped("closed", l.sends(l.a, f), 203)

	half, err := l.g.Policies()
	l.must(err)
	// What is in the kernel still has the old verdict. It must not come back.
	if e := half[subjectA][egress(0, policy.ProtoUDP, 53, 16)]; e != allow(1) {
		t.Fatalf("the table has %+v already; the test proves nothing", e)
	}
	// All else is written before the deny, which leaves time to see what is in force.
	want := PolicyTable{}
	for k := range half[subjectA] {
		want[k] = allow(4)
	}
	want[egress(0, policy.ProtoUDP, 53, 16)] = deny(2)
	started, stop, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	seen := map[uint32]int{}
	go func() {
		defer close(done)
		l := l.in(t)
		for n := 0; ; n++ {
			if n == 1 {
				close(started)
			}
			if r, err := l.try(l.g.objs.HgFromWorkload, l.a.ifindex, 0, f.bytes()); err == nil {
				seen[r.action]++
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	<-started
	l.must(l.g.SyncPolicy(subjectA, half[subjectA], want))
	close(stop)
	<-done
	if seen[actionSend] > 0 || seen[actionShot] == 0 {
		t.Errorf("while its table was made whole: %v", seen)
	}
	l.forget()
	l.dropped("under the new table", l.sends(l.a, f), 181)
	got, err := l.g.Policies()
	l.must(err)
	if !maps.Equal(got[subjectA], want) {
		t.Errorf("in the kernel %d entries", len(got[subjectA]))
	}

	// A table that is no larger finds no room either while the old one stands; once
	// closed it does.
	smaller := everything()
	if err := l.g.SyncPolicy(subjectA, want, smaller); err == nil {
		t.Error("a new entry found room in a full map")
	}
	l.dropped("closed again", l.sends(l.a, f), 203)
	half, err = l.g.Policies()
	l.must(err)
	l.must(l.g.SyncPolicy(subjectA, half[subjectA], smaller))
	l.delivered("allowed again", l.sends(l.a, f))
}
