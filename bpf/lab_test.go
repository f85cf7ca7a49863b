package bpf

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/headgate/headgate/policy"
)

// needRoot skips without privileges, but fails where CI promised them: a test
// that is never run proves nothing.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root, and CI is set")
	}
	t.Skip("needs root: loads programs and makes network namespaces")
}

// Identities and numbers of the lab.
const (
	identityA  policy.Identity = 1001
	identityB  policy.Identity = 1002
	subjectA                   = 11
	subjectB                   = 12
	actionOK                   = 0
	actionShot                 = 2
	actionSend                 = 7 // redirect
)

var (
	gatewayMAC = net.HardwareAddr{2, 0x68, 0x67, 0, 0, 1}
	gateway4   = netip.MustParseAddr("169.254.1.1")
	gateway6   = netip.MustParseAddr("fe80::1")
	host4      = netip.MustParseAddr("192.0.2.1")
	host6      = netip.MustParseAddr("2001:db8::1")
	world4     = netip.MustParseAddr("198.51.100.7")
	world6     = netip.MustParseAddr("2001:db8:ffff::7")
)

// workload is one end in the lab.
type workload struct {
	ifindex  int
	v4, v6   netip.Addr
	mac      net.HardwareAddr
	identity policy.Identity
	subject  uint32
	id       uint16
}

// lab is a gate and the devices its packets name, in a network namespace of its
// own.
type lab struct {
	testing.TB
	g      *Gate
	ns     netns.NsHandle
	a, b   workload
	host   int // the device for packets of the host
	events *ringbuf.Reader
}

// privateThread ties the goroutine to a thread that ends with it, so that no other
// goroutine ever runs in a namespace of a test.
func privateThread(t testing.TB) netns.NsHandle {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatal("make a network namespace:", err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func newLab(t testing.TB, change ...func(*Options)) *lab {
	t.Helper()
	l := &lab{TB: t, ns: privateThread(t)}
	up(t, "lo")
	l.a = workload{
		ifindex: veth(t, "wa"), v4: netip.MustParseAddr("10.1.0.1"), v6: netip.MustParseAddr("fd00:1::1"),
		mac: net.HardwareAddr{2, 0, 0, 0, 0, 0xa}, identity: identityA, subject: subjectA, id: 1,
	}
	l.b = workload{
		ifindex: veth(t, "wb"), v4: netip.MustParseAddr("10.1.0.2"), v6: netip.MustParseAddr("fd00:1::2"),
		mac: net.HardwareAddr{2, 0, 0, 0, 0, 0xb}, identity: identityB, subject: subjectB, id: 2,
	}
	l.host = veth(t, "hg0")
	o := Options{Gateway4: gateway4, Gateway6: gateway6, GatewayMAC: gatewayMAC, HostIfindex: l.host}
	for _, f := range change {
		f(&o)
	}
	g, err := Load(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	l.g = g
	if l.events, err = ringbuf.NewReader(g.objs.HgEvents1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.events.Close() })
	l.reset(nil, nil)
	return l
}

// in is the lab for a subtest: on its own thread, in the same namespace.
func (l *lab) in(t testing.TB) *lab {
	t.Helper()
	runtime.LockOSThread()
	if err := netns.Set(l.ns); err != nil {
		t.Fatal("enter the network namespace:", err)
	}
	c := *l
	c.TB = t
	return &c
}

func up(t testing.TB, name string) netlink.Link {
	t.Helper()
	dev, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(dev)
	}
	if err != nil {
		t.Fatalf("bring %s up: %v", name, err)
	}
	return dev
}

// veth makes a pair, both ends here, and gives the index of the first.
func veth(t testing.TB, name string) int {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "p"}); err != nil {
		t.Fatalf("add veth %s: %v", name, err)
	}
	// The kernel's own IPv6 messages would stir the counters.
	for _, end := range []string{name, name + "p"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+end+"/disable_ipv6", []byte("1"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	up(t, name+"p")
	return up(t, name).Attrs().Index
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// everything is a table that lets all through.
func everything() PolicyTable {
	return PolicyTable{{Direction: policy.Egress}: {Verdict: policy.Allow}, {Direction: policy.Ingress}: {Verdict: policy.Allow}}
}

// reset empties the maps and puts both workloads back, with these policies; nil
// lets everything through.
func (l *lab) reset(a, b PolicyTable) {
	l.Helper()
	o := &l.g.objs
	for _, m := range []*ebpf.Map{
		o.HgEndpoint1, o.HgIpcache1, o.HgSubject1, o.HgPolicy1, o.HgRoute1, o.HgCtTcp1, o.HgCtAny1, o.HgFragment1, o.HgAnswer1,
		o.HgNatTcp1, o.HgNatAny1,
	} {
		l.must(empty(m))
	}
	l.forget()
	l.must(l.g.SetRevision(1))
	for p, id := range map[string]policy.Identity{
		"0.0.0.0/0": policy.IdentityWorld, "::/0": policy.IdentityWorld,
		"10.1.0.0/16": 0, "fd00:1::/64": 0,
		host4.String() + "/32": policy.IdentityHost, host6.String() + "/128": policy.IdentityHost,
		gateway4.String() + "/32": policy.IdentityHost, gateway6.String() + "/128": policy.IdentityHost,
	} {
		l.must(l.g.SetIdentity(netip.MustParsePrefix(p), id))
	}
	for i, w := range []workload{l.a, l.b} {
		l.put(w, true)
		table := [2]PolicyTable{a, b}[i]
		if table == nil {
			table = everything()
		}
		l.must(l.g.SyncPolicy(w.subject, nil, table))
	}
}

// put writes both addresses of a workload.
func (l *lab) put(w workload, ready bool) {
	l.Helper()
	for _, addr := range []netip.Addr{w.v4, w.v6} {
		l.must(l.g.SetEndpoint(Endpoint{
			Addr: addr, Ifindex: w.ifindex, ID: w.id, Identity: w.identity, Subject: w.subject, MAC: w.mac, Ready: ready,
		}))
	}
}

// forget empties counters and events.
func (l *lab) forget() {
	l.Helper()
	drops, err := l.g.Drops()
	l.must(err)
	zero := make([]gateCounter, ebpf.MustPossibleCPU())
	for _, d := range drops {
		l.must(l.g.objs.HgDrops1.Put(uint32(d.Reason)*2+uint32(d.Direction), zero))
	}
	l.must(l.g.objs.HgLost1.Put(uint32(0), make([]uint64, ebpf.MustPossibleCPU())))
	l.seen()
}

// seen are the events since it was last called.
func (l *lab) seen() []Event {
	l.Helper()
	var out []Event
	l.events.SetDeadline(time.Unix(1, 0))
	for {
		rec, err := l.events.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		l.must(err)
		e := gateEventOf(rec.RawSample)
		out = append(out, event(e, 0))
	}
}

func empty(m *ebpf.Map) error {
	key := make([]byte, m.KeySize())
	for m.NextKey(nil, key) == nil {
		if err := ignoreMissing(m.Delete(key)); err != nil {
			return err
		}
	}
	return nil
}
