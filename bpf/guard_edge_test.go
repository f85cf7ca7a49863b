package bpf

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/headgate/headgate/policy"
)

// fenced is the lab with other networks, whose host has policy.
func fenced(t *testing.T, table PolicyTable) *outer {
	t.Helper()
	o := newOuter(t)
	o.guard(table)
	return o
}

func (o *outer) guard(table PolicyTable) {
	o.Helper()
	o.must(o.g.SyncPolicy(subjectHost, nil, table))
	o.must(o.g.SetSettings(Settings{Host: HostEnforce, HostSubject: subjectHost}))
}

// stranger is a packet of somebody outside to the node.
func (o *outer) stranger(v6 bool, proto uint8, sport, dport uint16, flags uint8) frame {
	f := o.packet(v6, proto)
	f.src, f.dst = pick(v6, world4, world6), pick(v6, node4, node6)
	f.sport, f.dport, f.flags = sport, dport, flags
	return f
}

// What the host's stack takes is judged though nobody told the gate of the address: a
// subnet's broadcast address in a frame for one, an address that is new, a local route.
// What it only forwards is not its own.
func TestHostFirewallUnknownAddresses(t *testing.T) {
	o := fenced(t, hostTable)
	dev := up(t, "up0")
	w := &wired{lab: o.lab}
	w.sysctl("/proc/sys/net/ipv4/conf/up0/forwarding", "1")
	w.sysctl("/proc/sys/net/ipv6/conf/up0/forwarding", "1")
	added := map[bool]netip.Addr{false: mustAddr("192.0.2.77"), true: mustAddr("2001:db8:5::77")}
	local := map[bool]netip.Addr{false: mustAddr("203.0.113.5"), true: mustAddr("2001:db8:9::5")}
	lo, err := net.InterfaceByName("lo")
	o.must(err)
	for _, v6 := range families {
		o.must(netlink.AddrAdd(dev, &netlink.Addr{IPNet: whole(added[v6]), Flags: 2 /* IFA_F_NODAD */}))
		o.must(netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Index, Dst: whole(local[v6]), Type: 2 /* RTN_LOCAL */, Table: 255, Scope: netlink.SCOPE_HOST}))
	}
	for _, c := range []struct {
		name string
		to   netip.Addr
		want uint32
	}{
		{"broadcast of the subnet", mustAddr("192.0.2.255"), actionShot},
		{"a new address", added[false], actionShot}, {"a new IPv6 address", added[true], actionShot},
		{"a local route", local[false], actionShot}, {"a local IPv6 route", local[true], actionShot},
		{"somebody's on the link", mustAddr("192.0.2.9"), actionNext}, {"somebody's on the IPv6 link", mustAddr("2001:db8:5::9"), actionNext},
		{"elsewhere", mustAddr("198.51.100.9"), actionNext},
	} {
		f := o.stranger(c.to.Is6(), protoUDP, 5000, 5353, 0).to(c.to)
		for end := time.Now().Add(patience); o.enters(f).action != c.want && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // an IPv6 address takes its time
		}
		o.wants(c.name, o.enters(f).action, c.want)
		f = o.stranger(c.to.Is6(), 89, 0, 0, 0).to(c.to)
		f.body = make([]byte, 32)
		o.wants(c.name+", another protocol", o.enters(f).action, c.want)
	}
	o.must(o.g.SetSettings(Settings{HostSubject: subjectHost}))
	o.wants("off", o.enters(o.stranger(false, protoUDP, 5000, 5353, 0).to(mustAddr("192.0.2.255"))).action, actionNext)
}

// Nobody outside is this machine, whatever policy says of it; a router that is called
// as our gateway is towards workloads is no more than others are.
func TestHostFirewallForgedSource(t *testing.T) {
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			o := fenced(t, PolicyTable{ingress(policy.IdentityHost, 0, 0, 0): allow(1), ingress(policy.IdentityWorld, policy.ProtoUDP, 443, 16): allow(1)})
			for _, src := range []netip.Addr{pick(v6, node4, node6), pick(v6, host4, host6)} {
				for _, proto := range []uint8{protoUDP, protoTCP} {
					f := o.stranger(v6, proto, 5000, 53, syn)
					f.src = src
					o.expect("as "+src.String(), o.enters(f), actionShot, 132, policy.Ingress)
				}
			}
			if v6 {
				f := o.stranger(true, protoUDP, 5000, 53, 0)
				f.src = gateway6
				o.expect("a router", o.enters(f), actionShot, 133, policy.Ingress)
				f.dport = 443
				o.wants("a router, to what the world may", o.enters(f).action, actionNext)
			}
			o.must(o.g.SetSettings(Settings{Host: HostAudit, HostSubject: subjectHost}))
			f := o.stranger(v6, protoUDP, 5000, 53, 0)
			f.src = pick(v6, node4, node6)
			o.wants("audited", o.enters(f).action, actionNext)
		})
	}
}

// A connection of the host's that gave way to an endpoint's port ends as any other
// when policy takes it back.
func TestHostFirewallRevokesTranslated(t *testing.T) {
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			o := fenced(t, PolicyTable{egress(0, 0, 0, 0): allow(1)})
			for name, f := range o.protocols(v6) {
				o.renew(nil, nil)
				o.guard(PolicyTable{egress(0, 0, 0, 0): allow(1)})
				o.sent(o.a, f)
				own := f
				own.src, own.srcMAC, own.dstMAC = pick(v6, node4, node6), o.mac, gatewayMAC
				r := o.leaves(workload{}, own, 0)
				out := own.asNode(nodePort(f, r.data))
				if r.action != actionNext || nodePort(own, out.bytes()) == nodePort(f, f.bytes()) {
					t.Fatalf("%s: the host's leaves as %x, action %d", name, r.data, r.action)
				}
				o.wants(name+": its answer", o.enters(out.reversed(syn|ack)).action, actionNext)
				if c, ok := o.g.Conntrack().Lookup(own.source(), own.target()); name == "TCP" && (!ok || c.Packets != [2]uint64{1, 1}) {
					t.Errorf("%s: accounted as %+v", name, c)
				}
				o.wants(name+": its ACK", o.leaves(workload{}, own.with(ack), 0).action, actionNext)
				o.wants(name+": its data", o.enters(out.reversed(ack)).action, actionNext)
				o.wants(name+": more", o.enters(out.reversed(ack)).action, actionNext)
				o.must(o.g.SyncPolicy(subjectHost, PolicyTable{egress(0, 0, 0, 0): allow(1)}, PolicyTable{}))
				o.must(o.g.SetRevision(9))
				o.forget()
				o.wants(name+": revoked", o.enters(out.reversed(ack)).action, actionShot)
				o.wants(name+": revoked, its own", o.leaves(workload{}, own.with(ack), 0).action, actionShot)
			}
		})
	}
}

// What the kernel translates for somebody behind this machine is not the host's, and
// neither are its answers; but no way to the host's own sockets.
func TestHostFirewallForwarded(t *testing.T) {
	behind := workload{ifindex: 4242} // docker0, wg0
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			o := fenced(t, PolicyTable{})
			for name, f := range o.protocols(v6) {
				o.renew(nil, nil)
				o.guard(PolicyTable{})
				own := f
				own.src, own.srcMAC, own.dstMAC = pick(v6, node4, node6), o.mac, gatewayMAC
				o.wants(name+": an answer before", o.enters(own.reversed(syn|ack)).action, actionShot)
				o.wants(name+": the host's own", o.leaves(workload{}, own, 0).action, actionShot)
				o.wants(name+": translated", o.leaves(behind, own, 0).action, actionNext)
				o.wants(name+": its answer", o.enters(own.reversed(syn|ack)).action, actionNext)
				o.wants(name+": more", o.leaves(behind, own.with(ack), 0).action, actionNext)
				o.wants(name+": its answer", o.enters(own.reversed(ack)).action, actionNext)
				o.wants(name+": of the host's still", o.leaves(workload{}, own.with(syn), 0).action, actionShot)
				other := own.reversed(ack)
				other.src = other.src.Next()
				o.wants(name+": from another", o.enters(other).action, actionShot)
			}
			// In our name, towards a socket of ours.
			u, err := net.ListenPacket("udp", netip.AddrPortFrom(pick(v6, node4, node6), 0).String())
			o.must(err)
			defer u.Close()
			l, err := net.Listen("tcp", netip.AddrPortFrom(pick(v6, node4, node6), 0).String())
			o.must(err)
			defer l.Close()
			for _, f := range []frame{o.udp(v6, ends(u.LocalAddr()).Port(), 53), o.tcp(v6, ends(l.Addr()).Port(), 80, syn)} {
				own := o.world(f)
				own.src, own.srcMAC, own.dstMAC = pick(v6, node4, node6), o.mac, gatewayMAC
				o.wants("in our name", o.leaves(behind, own, 0).action, actionNext)
				o.forget()
				o.wants("to our socket", o.enters(own.reversed(syn)).action, actionShot)
			}
		})
	}
}
