package bpf

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/headgate/headgate/policy"
)

// Every map that can fill up is filled: what is new is refused, what is there is
// served, and how full each is can be told without reading it.
func TestFullTables(t *testing.T) {
	l := newLab(t, func(o *Options) {
		o.Sizes = Sizes{Endpoints: 8, Identities: 100, Subjects: 4, Routes: 3}
	})
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}) }
	fill := func(what string, limit uint64, put func(i int) error) {
		t.Helper()
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			err = put(n)
		}
		if err == nil {
			t.Fatalf("%s: 1000 more found room", what)
		}
		if u := l.usage()[what]; u.Entries != limit || u.Limit != limit || u.Percent() != 100 {
			t.Errorf("%s: usage %+v, want %d of %d", what, u, limit, limit)
		}
	}
	f := l.tcp(false, 40000, 80, 0)
	l.open(f)
	fill("endpoints", 8, func(i int) error {
		return l.g.SetEndpoint(Endpoint{Addr: address(i), Ifindex: l.b.ifindex, MAC: l.b.mac, Ready: true})
	})
	fill("subjects", 4, func(i int) error { return l.g.SyncPolicy(uint32(100+i), nil, everything()) })
	fill("routes", 3, func(i int) error { return l.g.SetRoute(Route{uint32(i), 1}, 8000) })
	fill("ipcache", 100, func(i int) error {
		return l.g.SetIdentity(netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), 0}), 24), policy.IdentityMinLocal)
	})

	// What is there can still be changed, and carries on.
	l.must(l.g.SetRoute(Route{0, 1}, 8001))
	l.put(l.a, true)
	l.must(l.g.SyncPolicy(subjectA, everything(), everything()))
	l.delivered("established", l.sends(l.a, f.with(ack)))
	l.delivered("new", l.sends(l.a, l.tcp(false, 40001, 80, syn)))
	l.dropped("to an endpoint without room", l.sends(l.a, l.tcp(false, 40002, 80, syn).to(address(200))), 150)
}

// The last twentieth of the policy map and of the identities is for denies.
func TestRoomForDenies(t *testing.T) {
	l := newLab(t, func(o *Options) { o.MaxPolicy, o.Sizes.Identities = 200, 100 })
	table := everything()
	for port := uint16(1); len(table) < 188; port++ { // b has two entries
		table[egress(identityB, policy.ProtoTCP, port, 16)] = allow(1)
	}
	l.must(l.g.SyncPolicy(subjectA, everything(), table))
	more := PolicyTable{}
	for k, e := range table {
		more[k] = e
	}
	more[egress(identityB, policy.ProtoTCP, 999, 16)] = deny(2)
	l.must(l.g.SyncPolicy(subjectA, table, more))
	l.dropped("denied in what is kept", l.sends(l.a, l.tcp(false, 40000, 999, syn)), 181)
	l.delivered("the rest", l.sends(l.a, l.tcp(false, 40000, 1, syn)))

	other := everything()
	other[ingress(identityA, policy.ProtoTCP, 7, 16)] = allow(1)
	if err := l.g.SyncPolicy(subjectB, everything(), other); !errors.Is(err, ErrFull) {
		t.Fatalf("an allow in what is kept for denies: %v", err)
	}
	l.expect("b is closed", l.sends(l.a, l.tcp(false, 40001, 1, syn)), actionShot, 203, policy.Ingress)
	other[ingress(identityA, policy.ProtoTCP, 7, 16)] = deny(3)
	l.must(l.g.SyncPolicy(subjectB, everything(), other))
	l.delivered("b is open again", l.sends(l.a, l.tcp(false, 40002, 1, syn)))

	prefix := func(i byte) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, i, 0}), 24) }
	var err error
	i := byte(0)
	for ; err == nil && i < 255; i++ {
		err = l.g.SetSpareIdentity(prefix(i), policy.IdentityMinLocal)
	}
	if u := l.usage()["ipcache"]; !errors.Is(err, ErrFull) || u.Entries != 95 {
		t.Errorf("allowed prefixes fill %+v, %v", u, err)
	}
	l.must(l.g.SetIdentity(prefix(i), policy.IdentityMinLocal))
}

// A flood of half-open connections evicts its own kind, never what is established.
func TestFloodEvictsItsOwn(t *testing.T) {
	l := newLab(t, func(o *Options) { o.Sizes.Opening = 256 })
	for port := range uint16(50) {
		l.open(l.tcp(false, 30000+port, 80, 0))
	}
	for port := range uint16(5000) {
		if r := l.sends(l.a, l.tcp(false, 40000+port, 80, syn)); r.action != actionSend {
			t.Fatalf("SYN %d: action %d", port, r.action)
		}
	}
	for port := range uint16(200) {
		l.sends(l.a, l.udp(false, 40000+port, 53))
	}
	l.forget()
	for port := range uint16(50) {
		l.delivered("established", l.sends(l.a, l.tcp(false, 30000+port, 80, ack)))
	}
	if u := l.usage(); u["ct-any"].Entries > 256 || u["ct-tcp"].Entries != 50 {
		t.Errorf("usage %+v", u)
	}
}

// One workload cannot take more than its share, whoever it connects to, and what it
// gives back it may use again.
func TestShare(t *testing.T) {
	l := newLab(t)
	l.must(l.g.SetSettings(Settings{Share: 3}))
	for port := range uint16(3) {
		l.open(l.tcp(port%2 == 0, 40000+port, 80, 0))
	}
	shares := func(want ...Share) {
		t.Helper()
		got := l.g.Shares()
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("shares %+v, want %+v", got, want)
		}
	}
	shares(Share{1, 3})
	l.dropped("one too many", l.sends(l.a, l.tcp(false, 40010, 80, syn)), 248)
	l.delivered("established", l.sends(l.a, l.tcp(false, 40001, 80, ack)))
	l.delivered("a question", l.sends(l.a, l.udp(false, 40010, 53)))

	// Half open when the share ran out: refused as it is established.
	l.must(l.g.SetSettings(Settings{Share: 4}))
	f := l.tcp(false, 40011, 80, syn)
	l.delivered("SYN", l.sends(l.a, f))
	l.must(l.g.SetSettings(Settings{Share: 3}))
	l.expect("SYN-ACK", l.answers(f, syn|ack), actionShot, 248, policy.Ingress)

	// b has a share of its own.
	back := l.tcp(false, 50000, 22, syn).reversed(syn)
	back.sport, back.dport, back.srcMAC, back.dstMAC = 50000, 22, l.b.mac, gatewayMAC
	l.delivered("b's", l.sends(l.b, back))

	// Reopened, collected and forgotten, it is given back.
	old := l.tcp(true, 40000, 80, 0)
	k := old.key()
	e, _ := l.entry(old)
	e.Expires = 1
	l.must(l.g.objs.HgCtTcp1.Put(&k, &e))
	l.delivered("the same again", l.sends(l.a, old.with(syn)))
	shares(Share{1, 2})
	mid := l.tcp(false, 40001, 80, 0)
	k = mid.key()
	e, _ = l.entry(mid)
	e.Expires = 1
	l.must(l.g.objs.HgCtTcp1.Put(&k, &e))
	if n, err := l.g.Conntrack().Collect(t.Context()); n != 1 || err != nil {
		t.Errorf("collected %d, %v", n, err)
	}
	shares(Share{1, 1})
	if _, err := l.g.Conntrack().Forget(l.a.v6); err != nil {
		t.Error(err)
	}
	shares()

	// A counter that drifted is put right when nothing changes meanwhile.
	l.must(l.g.SetSettings(Settings{}))
	l.open(l.tcp(false, 41000, 80, 0))
	*l.g.shares.of(1) = 77
	if _, err := l.g.Conntrack().Collect(t.Context()); err != nil {
		t.Error(err)
	}
	shares(Share{1, 1})
}

// What is set keeps its hands off the revision, and the other way round.
func TestSettings(t *testing.T) {
	l := newLab(t)
	want := Settings{Reset: true, Share: 9, Host: HostEnforce, HostSubject: 4}
	l.must(l.g.SetSettings(want))
	l.must(l.g.SetRevision(77))
	if got, r, err := l.g.Settings(); got != want || r != 77 || err != nil {
		t.Errorf("%+v, %d, %v", got, r, err)
	}
	want.Host = HostAudit
	l.must(l.g.SetSettings(want))
	if got, r, err := l.g.Settings(); got != want || r != 77 || err != nil {
		t.Errorf("%+v, %d, %v", got, r, err)
	}
	ports := []OpenPort{{policy.Ingress, policy.ProtoTCP, 22}, {policy.Egress, policy.ProtoUDP, 67}}
	l.must(l.g.SetOpenPorts(ports))
	l.must(l.g.SetOpenPorts(ports[:1]))
	if got, err := l.g.OpenPorts(); len(got) != 1 || got[0] != ports[0] || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// What a policy that audits would deny passes, and is told each time it is judged.
func TestAudit(t *testing.T) {
	l := newLab(t)
	audit := PolicyEntry{Verdict: policy.Allow, Rule: 9, Audit: true}
	l.reset(PolicyTable{egress(0, 0, 0, 0): audit}, nil)
	f := l.tcp(false, 40000, 80, syn)
	told := func() (out []Event) {
		for _, e := range l.seen() {
			if e.Audit {
				out = append(out, e)
			}
		}
		return out
	}
	if r := l.sends(l.a, f); r.action != actionSend {
		t.Fatalf("action %d", r.action)
	}
	if got := told(); len(got) != 1 || got[0].Kind != EventVerdict || got[0].Rule != 9 || got[0].Direction != policy.Egress {
		t.Errorf("told %+v", got)
	}
	l.must(l.g.SetRevision(2))
	if r := l.answers(f, syn|ack); r.action != actionSend {
		t.Fatalf("answer: action %d", r.action)
	}
	if got := told(); len(got) != 1 || got[0].Source != f.source() {
		t.Errorf("judged again, told %+v", got)
	}
	tables, err := l.g.Policies()
	l.must(err)
	if got := tables[subjectA][egress(0, 0, 0, 0)]; got != audit {
		t.Errorf("read back %+v", got)
	}
}
