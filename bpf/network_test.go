package bpf

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// actionNext is "as if we were not here".
const actionNext = 0xffffffff

var (
	node4   = netip.MustParseAddr("192.0.2.2")
	node6   = netip.MustParseAddr("2001:db8:5::2")
	router4 = netip.MustParseAddr("192.0.2.3")
	router6 = netip.MustParseAddr("2001:db8:5::3")
)

func pick(v6 bool, a, b netip.Addr) netip.Addr {
	if v6 {
		return b
	}
	return a
}

// outer is the lab with a device by which other networks are reached.
type outer struct {
	*lab
	uplink int
	mac    net.HardwareAddr
}

func newOuter(t testing.TB, change ...func(*Options)) *outer {
	t.Helper()
	o := &outer{lab: newLab(t, append([]func(*Options){func(o *Options) { o.Masquerade.On = true }}, change...)...)}
	o.uplink = veth(t, "up0")
	dev := up(t, "up0")
	o.mac = dev.Attrs().HardwareAddr
	for _, name := range []string{"ipv4/conf/hg0/forwarding", "ipv6/conf/hg0/forwarding"} {
		(&wired{lab: o.lab}).sysctl("/proc/sys/net/"+name, "1")
	}
	for _, dev := range []string{"up0", "hg0"} {
		(&wired{lab: o.lab}).sysctl("/proc/sys/net/ipv6/conf/"+dev+"/disable_ipv6", "0")
	}
	for _, v6 := range families {
		node, router := pick(v6, node4, node6), pick(v6, router4, router6)
		on := &net.IPNet{IP: node.AsSlice(), Mask: net.CIDRMask(node.BitLen()-8, node.BitLen())}
		o.must(netlink.AddrAdd(dev, &netlink.Addr{IPNet: on, Flags: unix.IFA_F_NODAD}))
		all := &net.IPNet{IP: make(net.IP, node.BitLen()/8), Mask: net.CIDRMask(0, node.BitLen())}
		o.must(netlink.RouteAdd(&netlink.Route{LinkIndex: o.uplink, Dst: all, Gw: router.AsSlice()}))
	}
	o.renew(nil, nil)
	return o
}

// renew is reset, with the node's addresses.
func (o *outer) renew(a, b PolicyTable) {
	o.Helper()
	o.reset(a, b)
	o.must(o.g.SetDevice(Device{Ifindex: o.uplink, V4: node4, V6: node6}))
	o.must(o.g.SetNodeAddresses([]netip.Addr{node4, node6, host4, host6}))
	for _, v6 := range families {
		a := pick(v6, node4, node6)
		o.must(o.g.SetIdentity(netip.PrefixFrom(a, a.BitLen()), policy.IdentityHost))
	}
}

func (o *outer) in(t testing.TB) *outer {
	t.Helper()
	c := *o
	c.lab = o.lab.in(t)
	return &c
}

// leaves is what becomes of a packet on its way out: a workload's, sent on by its
// veth, or with no workload one of this machine's own.
func (o *outer) leaves(w workload, f frame, mark uint32) result {
	o.Helper()
	return o.through(o.g.objs.HgToNetwork, w.ifindex, mark, f)
}

func (o *outer) through(p *ebpf.Program, from int, mark uint32, f frame) result {
	o.Helper()
	in := skb{Mark: mark, Ifindex: uint32(o.uplink), IngressIfindex: uint32(from)}
	var out skb
	b := f.bytes()
	opts := ebpf.RunOptions{Data: b, DataOut: make([]byte, len(b)+256), Context: in, ContextOut: &out, Repeat: 1}
	action, err := p.Run(&opts)
	o.must(err)
	return result{action: action, mark: out.Mark, data: opts.DataOut}
}

// enters is what becomes of a packet that comes from outside.
func (o *outer) enters(f frame) result {
	o.Helper()
	f.dstMAC, f.srcMAC = o.mac, net.HardwareAddr{2, 0, 0, 0, 0, 0xe}
	return o.through(o.g.objs.HgFromNetwork, 0, 0, f)
}

// world is a packet of a's to the outside.
func (o *outer) world(f frame) frame {
	return f.to(pick(f.src.Is6(), world4, world6))
}

// asNode is the packet as others see it.
func (f frame) asNode(port uint16) frame {
	f.src = pick(f.src.Is6(), node4, node6)
	if f.icmpType != 0 {
		f.id = port
	} else {
		f.sport = port
	}
	return f
}

// sent has a packet judged and translated, and gives what left.
func (o *outer) sent(w workload, f frame) frame {
	o.Helper()
	o.expect("packet", o.sends(w, f), actionSend, 0, policy.Egress)
	r := o.leaves(w, f, 0)
	if r.action != actionNext {
		o.Fatalf("leaving: action %d, counted %q", r.action, o.counted())
	}
	port := nodePort(f, r.data)
	if want := f.asNode(port); string(r.data) != string(want.bytes()) {
		o.Errorf("left as\n%x, want\n%x", r.data, want.bytes())
	}
	return f.asNode(port)
}

func nodePort(f frame, data []byte) uint16 {
	at := 14 + 20
	if f.src.Is6() {
		at = 14 + 40
	}
	if f.icmpType != 0 {
		at += 4
	}
	return uint16(data[at])<<8 | uint16(data[at+1])
}

// answered has the outside answer what left, and wants the workload to get it.
func (o *outer) answered(w workload, f, left frame, flags uint8) {
	o.Helper()
	r := o.enters(left.reversed(flags))
	o.expect("answer", r, actionSend, 0, policy.Ingress)
	want := f.reversed(flags)
	want.dstMAC, want.srcMAC, want.ttl = w.mac, gatewayMAC, want.ttl-1
	if string(r.data) != string(want.bytes()) {
		o.Errorf("the workload gets\n%x, want\n%x", r.data, want.bytes())
	}
}

func (o *outer) protocols(v6 bool) map[string]frame {
	return map[string]frame{
		"TCP": o.world(o.tcp(v6, 40000, 80, syn)), "UDP": o.world(o.udp(v6, 40000, 53)), "echo": o.world(o.echo(v6, 77)),
	}
}

// A packet to the outside is routed, leaves with the node's address, and its answer
// finds back.
func TestToOutside(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		for name, f := range o.protocols(v6) {
			t.Run(family+" "+name, func(t *testing.T) {
				o := o.in(t)
				o.renew(PolicyTable{egress(policy.IdentityWorld, 0, 0, 0): allow(1)}, nil)
				left := o.sent(o.a, f)
				if port := nodePort(f, left.bytes()); port != nodePort(f, f.bytes()) {
					t.Errorf("port %d, but its own was free", port)
				}
				o.answered(o.a, f, left, syn|ack)
				if name == "TCP" {
					f, left = f.with(ack), left.with(ack)
				}
				if again := o.sent(o.a, f); again.sport != left.sport {
					t.Errorf("the next packet leaves by port %d, the first by %d", again.sport, left.sport)
				}
				o.answered(o.a, f, left, ack)
				o.dropped("from b", o.sends(o.b, f), 132)
			})
		}
	}
}

func TestToOutsideJudged(t *testing.T) {
	o := newOuter(t)
	for _, v6 := range families {
		f := o.world(o.tcp(v6, 40000, 80, syn))
		o.renew(PolicyTable{egress(policy.IdentityHost, 0, 0, 0): allow(1)}, nil)
		o.dropped("no rule", o.sends(o.a, f), 133)
		o.renew(nil, nil)
		o.must(o.g.DeleteDevice(o.uplink))
		o.expectAll("by a device that is not served", o.sends(o.a, f), actionShot, "0 egress, 243 egress")
		o.expect("leaving by it", o.leaves(o.a, f, 0), actionShot, 243, policy.Egress)
		o.renew(nil, nil)
		o.must(o.g.SetDevice(Device{Ifindex: o.uplink}))
		o.sends(o.a, f)
		o.forget()
		o.expect("by one without an address", o.leaves(o.a, f, 0), actionShot, 241, policy.Egress)
		o.renew(nil, nil)
		o.expect("of no connection", o.leaves(o.a, f, 0), actionShot, 163, policy.Egress)
		o.sends(o.a, f)
		o.forget()
		o.expect("by another's veth", o.leaves(o.b, f, 0), actionShot, 132, policy.Egress)
		o.expect("by the host's stack", o.leaves(workload{}, f, 0), actionShot, 132, policy.Egress)
		o.expect("with the proxy's mark from a veth", o.leaves(o.b, f, redirect.MarkFromProxy), actionShot, 132, policy.Egress)
	}
}

// expectAll checks the action and all counters that moved.
func (l *lab) expectAll(what string, r result, action uint32, counted string) {
	l.Helper()
	if r.action != action {
		l.Errorf("%s: action %d, want %d", what, r.action, action)
	}
	if got := l.counted(); got != counted {
		l.Errorf("%s: counted %q, want %q", what, got, counted)
	}
	l.forget()
}

// What is not an endpoint's passes as it is, without a trace.
func TestHostUntouched(t *testing.T) {
	o := newOuter(t)
	for _, v6 := range families {
		for name, f := range o.protocols(v6) {
			f.src = pick(v6, node4, node6)
			other := f
			other.src = pick(v6, router4, router6) // forwarded
			fragment := f
			fragment.fragment, fragment.datagram = 0x2000, 5
			for what, f := range map[string]frame{"plain": f, "forwarded": other, "fragment": fragment, "SYN-ACK": f.with(syn | ack), "ACK": f.with(ack)} {
				for way, p := range map[string]*ebpf.Program{"leaving": o.g.objs.HgToNetwork, "entering": o.g.objs.HgFromNetwork} {
					if way == "entering" {
						f = f.reversed(f.flags)
						f.dstMAC, f.srcMAC = o.mac, o.a.mac
					}
					r := o.through(p, 0, 0, f)
					if string(r.data) != string(f.bytes()) {
						t.Errorf("%s %s, %s: changed to %x", name, what, way, r.data)
					}
					o.expectAll(strings.Join([]string{name, what, way}, " "), r, actionNext, "")
				}
			}
		}
	}
	o.expectAll("ARP", o.run(o.g.objs.HgFromNetwork, o.uplink, 0, arp(1, o.a.mac, router4, node4)), actionNext, "")
	for _, id := range []policy.Proto{policy.ProtoTCP, policy.ProtoUDP} {
		if n, err := entries(o.g.objs.HgNatAny1); n != 0 || err != nil {
			t.Errorf("%d holds of protocol %v, %v", n, id, err)
		}
	}
}

// Somebody outside opens a connection to an endpoint's own address.
func TestFromOutside(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		f := o.world(o.tcp(v6, 80, 50000, syn)).reversed(syn)
		for _, c := range []struct {
			name    string
			table   PolicyTable
			change  func(o *outer, f *frame)
			action  uint32
			counted string
		}{
			{"allowed", PolicyTable{ingress(policy.IdentityWorld, policy.ProtoTCP, 80, 16): allow(1)}, nil, actionSend, "0 ingress"},
			{"no rule", PolicyTable{ingress(policy.IdentityHost, 0, 0, 0): allow(1)}, nil, actionShot, "133 ingress"},
			{"denied", PolicyTable{ingress(policy.IdentityWorld, 0, 0, 0): deny(1)}, nil, actionShot, "181 ingress"},
			{"redirected, no socket", PolicyTable{ingress(0, 0, 0, 0): {Verdict: policy.Redirect, Set: setOne}}, nil, actionShot, "0 ingress, 232 ingress"},
			{"ACK of no connection", nil, func(_ *outer, f *frame) { f.flags = ack }, actionShot, "163 ingress"},
			{"from an endpoint's address", nil, func(o *outer, f *frame) { f.src = o.b.addr(v6) }, actionShot, "132 ingress"},
			{"from the node's address", nil, func(_ *outer, f *frame) { f.src = pick(v6, node4, node6) }, actionShot, "132 ingress"},
			{"from nobody's of the endpoints'", nil, func(o *outer, f *frame) { f.src = o.a.addr(v6).Prev() }, actionShot, "132 ingress"},
			{"to nobody's of the endpoints'", nil, func(o *outer, f *frame) { f.dst = o.a.addr(v6).Prev() }, actionShot, "150 ingress"},
			{"to the host, from an endpoint's", nil, func(o *outer, f *frame) { f.src, f.dst = o.b.addr(v6), pick(v6, node4, node6) }, actionShot, "132 ingress"},
			{"not ready", nil, func(o *outer, _ *frame) { o.put(o.a, false) }, actionShot, "203 ingress"},
			{"no hop left", nil, func(_ *outer, f *frame) { f.ttl = 1 }, actionSend, "0 ingress, 196 egress"},
		} {
			t.Run(family+" "+c.name, func(t *testing.T) {
				o := o.in(t)
				o.renew(c.table, nil)
				o.must(o.g.SetRoute(AnyRoute(1), deadPort))
				f := f
				if c.change != nil {
					c.change(o, &f)
				}
				o.expectAll("packet", o.enters(f), c.action, c.counted)
			})
		}
		// Its answers keep the endpoint's address.
		o.renew(PolicyTable{ingress(policy.IdentityWorld, 0, 0, 0): allow(1)}, nil)
		o.expectAll("SYN", o.enters(f), actionSend, "0 ingress")
		back := f.reversed(syn | ack)
		back.srcMAC, back.dstMAC = o.a.mac, gatewayMAC
		o.expect("SYN-ACK", o.sends(o.a, back), actionSend, 0, policy.Egress)
		if r := o.leaves(o.a, back, 0); r.action != actionNext || string(r.data) != string(back.bytes()) {
			t.Errorf("SYN-ACK leaves: action %d, %x", r.action, r.data)
		}
	}
}

// A packet without a way, or too big for it, is answered by the gateway with what it
// was about, and reported; and no error is sent about an error.
func TestNoFurther(t *testing.T) {
	o := newOuter(t)
	dev := up(t, "up0")
	for family, v6 := range families {
		nowhere := &netlink.Route{Dst: whole(pick(v6, world4, world6)), Type: unix.RTN_UNREACHABLE}
		for _, c := range []struct {
			name    string
			size    int
			change  func() error
			reason  string
			kind    [2]uint8 // ICMP, ICMPv6
			code    uint8    // ICMP
			mtu     uint16
			passing bool
		}{
			{"as big as the way takes", 1400 - 48, func() error { return netlink.LinkSetMTU(dev, 1400) }, "0 egress", [2]uint8{}, 0, 0, true},
			{"too big", 1400, func() error { return netlink.LinkSetMTU(dev, 1400) }, "0 egress, 242 egress", [2]uint8{3, 2}, 4, 1400, false},
			{"no route", 100, func() error { return netlink.RouteAdd(nowhere) }, "0 egress, 169 egress", [2]uint8{3, 1}, 0, 0, false},
		} {
			t.Run(family+" "+c.name, func(t *testing.T) {
				o := o.in(t)
				o.renew(nil, nil)
				o.must(c.change())
				f := o.world(o.udp(v6, 40000, 53))
				f.payload = make([]byte, c.size)
				r := o.sends(o.a, f)
				o.expectAll("packet", r, actionSend, c.reason)
				if c.passing {
					return
				}
				o.sameError(r.data, frame{
					src: pick(v6, gateway4, gateway6), dst: f.src, proto: map[bool]uint8{false: protoICMP, true: protoICMPv6}[v6],
					payload: f.bytes()[14 : 14+len(r.data)-14-map[bool]int{false: 28, true: 48}[v6]],
				})
				icmp := r.data[map[bool]int{false: 34, true: 54}[v6]:]
				if mtu := uint16(icmp[6])<<8 | uint16(icmp[7]); icmp[0] != c.kind[map[bool]int{true: 1}[v6]] || (!v6 && icmp[1] != c.code) || mtu != c.mtu {
					t.Errorf("type %d, code %d, MTU %d", icmp[0], icmp[1], mtu)
				}
			})
		}
	}
}
