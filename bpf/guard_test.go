package bpf

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
)

const (
	actionUnspec = ^uint32(0)
	subjectHost  = 77
	identityOut  = policy.IdentityWorld
)

// guarded is a lab whose host has policy. Its only device is the one of a.
func guarded(t *testing.T, mode HostFirewall, table PolicyTable) *lab {
	t.Helper()
	l := newLab(t)
	l.must(l.g.SetNodeAddresses([]netip.Addr{host4, host6}))
	l.must(l.g.SyncPolicy(subjectHost, nil, table))
	l.must(l.g.SetSettings(Settings{Host: mode, HostSubject: subjectHost}))
	l.must(l.g.SetOpenPorts([]OpenPort{{policy.Ingress, policy.ProtoTCP, 22}, {policy.Ingress, policy.ProtoUDP, 68}, {policy.Egress, policy.ProtoUDP, 67}}))
	return l
}

// outside is a packet of somebody outside to the host.
func (l *lab) outside(v6 bool, proto uint8, sport, dport uint16, flags uint8) frame {
	f := l.packet(v6, proto)
	f.src, f.dst = world4, host4
	if v6 {
		f.src, f.dst = world6, host6
	}
	f.sport, f.dport, f.flags = sport, dport, flags
	dev, err := netlink.LinkByIndex(l.host)
	l.must(err)
	f.dstMAC = dev.Attrs().HardwareAddr // else it is for another host
	return f
}

// enters and leaves are what becomes of it at the node's own device.
func (l *lab) enters(f frame) uint32 {
	l.Helper()
	return l.run(l.g.objs.HgFromNetwork, l.host, 0, f.bytes()).action
}

func (l *lab) leaves(f frame) uint32 {
	l.Helper()
	return l.run(l.g.objs.HgToNetwork, l.host, 0, f.bytes()).action
}

func (l *lab) wants(what string, got, want uint32) {
	l.Helper()
	if got != want {
		l.Errorf("%s: action %d, want %d", what, int32(got), int32(want))
	}
}

// hostTable lets the world reach port 443 and the host reach port 53 outside.
var hostTable = PolicyTable{
	ingress(0, policy.ProtoTCP, 443, 16): allow(1), egress(0, policy.ProtoUDP, 53, 16): allow(2), egress(0, policy.ProtoTCP, 53, 16): allow(2),
}

func TestHostFirewall(t *testing.T) {
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			l := guarded(t, HostEnforce, hostTable)
			tcp, udp := uint8(protoTCP), uint8(protoUDP)
			l.wants("SYN to an allowed port", l.enters(l.outside(v6, tcp, 5000, 443, syn)), actionUnspec)
			l.wants("its SYN-ACK", l.leaves(l.outside(v6, tcp, 5000, 443, syn).reversed(syn|ack)), actionUnspec)
			l.wants("its ACK", l.enters(l.outside(v6, tcp, 5000, 443, ack)), actionUnspec)
			l.forget()
			l.wants("SYN to another port", l.enters(l.outside(v6, tcp, 5000, 80, syn)), actionShot)
			if got := l.counted(); got != "133 ingress" {
				t.Errorf("counted %q", got)
			}
			seen := l.seen()
			if len(seen) != 1 || seen[0].Kind != EventDrop || seen[0].DestinationIdentity != policy.IdentityHost || seen[0].SourceIdentity != identityOut {
				t.Errorf("told %+v", seen)
			}
			l.wants("ACK of nothing", l.enters(l.outside(v6, tcp, 5001, 443, ack)), actionShot)
			l.wants("a question", l.leaves(l.outside(v6, udp, 53, 6000, 0).reversed(0)), actionUnspec)
			l.wants("its answer", l.enters(l.outside(v6, udp, 53, 6000, 0)), actionUnspec)
			l.wants("an answer nobody asked for", l.enters(l.outside(v6, udp, 53, 6001, 0)), actionShot)
			l.wants("a connection out", l.leaves(l.outside(v6, tcp, 80, 6000, 0).reversed(syn)), actionShot)
			l.wants("echo request", l.enters(echoOf(l.outside(v6, protoICMP, 0, 0, 0), v6)), actionShot)

			// The ports of the guard, and their answers, whatever policy says.
			l.wants("SSH", l.enters(l.outside(v6, tcp, 5000, 22, syn)), actionUnspec)
			l.wants("SSH, in the middle", l.enters(l.outside(v6, tcp, 5000, 22, ack)), actionUnspec)
			l.wants("SSH's answer", l.leaves(l.outside(v6, tcp, 5000, 22, 0).reversed(ack)), actionUnspec)
			l.wants("DHCP's question", l.leaves(l.outside(v6, udp, 67, 68, 0).reversed(0)), actionUnspec)
			l.wants("DHCP's answer", l.enters(l.outside(v6, udp, 67, 68, 0)), actionUnspec)
			l.wants("from port 67 to another", l.enters(l.outside(v6, udp, 67, 9999, 0)), actionShot)

			// Workloads' packets that are not the host's, and what is only forwarded.
			l.wants("somebody else's address", l.leaves(l.outside(v6, tcp, 5000, 80, syn)), actionUnspec)

			// Off, nothing is looked at.
			l.must(l.g.SetSettings(Settings{HostSubject: subjectHost}))
			l.wants("off", l.enters(l.outside(v6, tcp, 5000, 80, syn)), actionUnspec)
		})
	}
}

func echoOf(f frame, v6 bool) frame {
	f.icmpType, f.id = 8, 7
	if v6 {
		f.proto, f.icmpType = protoICMPv6, 128
	}
	return f
}

// Audit drops nothing, and tells what enforcing would drop.
func TestHostFirewallAudits(t *testing.T) {
	l := guarded(t, HostAudit, hostTable)
	for _, f := range []frame{
		l.outside(false, protoTCP, 5000, 80, syn), l.outside(true, protoUDP, 5000, 53, 0), l.outside(false, protoTCP, 5001, 443, ack),
		echoOf(l.outside(false, protoICMP, 0, 0, 0), false),
	} {
		l.forget()
		l.wants("audit", l.enters(f), actionUnspec)
		for _, e := range l.seen() {
			if e.Kind != EventVerdict {
				t.Errorf("audit told of a drop: %+v", e)
			}
			if f.flags != ack && !e.Audit {
				t.Errorf("not told as audited: %+v", e)
			}
		}
	}
	if got := l.counted(); got != "" {
		t.Errorf("counted %q", got)
	}
}

// Essentials pass whatever policy says: neighbours, group membership, path MTU.
func TestHostFirewallEssentials(t *testing.T) {
	l := guarded(t, HostEnforce, PolicyTable{})
	for _, typ := range []uint8{1, 2, 3, 4, 130, 131, 132, 133, 134, 135, 136, 143} {
		f := l.outside(true, protoICMPv6, 0, 0, 0)
		f.icmpType = typ
		if typ <= 4 {
			mac := f.dstMAC
			f = complaint(l.outside(true, protoTCP, 5000, 443, ack).reversed(ack), world6, typ, 0)
			f.dstMAC = mac
		}
		l.wants("ICMPv6 essentials", l.enters(f), actionUnspec)
	}
}

// What cannot be read is not essential, whatever it begins with; fragments follow
// their first.
func TestHostFirewallOddPackets(t *testing.T) {
	l := guarded(t, HostEnforce, hostTable)
	twice := l.outside(true, protoTCP, 5000, 80, syn)
	twice.extensions = []extension{{kind: 0, bytes: make([]byte, 8)}, {kind: 0, bytes: make([]byte, 8)}}
	l.wants("two hop-by-hop headers", l.enters(twice), actionShot)
	once := l.outside(true, protoTCP, 5000, 80, syn)
	once.extensions = twice.extensions[:1]
	l.wants("behind an extension header", l.enters(once), actionShot)
	redirect := l.outside(true, protoICMPv6, 0, 0, 0)
	redirect.icmpType = 137
	l.wants("a redirect", l.enters(redirect), actionShot)
	other := l.outside(false, 89, 0, 0, 0)
	other.body = make([]byte, 32)
	l.wants("another protocol", l.enters(other), actionShot)
	for family, v6 := range families {
		piece := func(dport uint16, id uint32, first bool) frame {
			f := l.outside(v6, protoUDP, 53, dport, 0)
			f.datagram, f.fragment = id, map[bool]uint16{false: 0x2000, true: 1}[v6]
			f.payload = make([]byte, 64)
			if !first {
				f.fragment, f.body = map[bool]uint16{false: 9, true: 9 << 3}[v6], make([]byte, 24)
			}
			return f
		}
		l.wants("the question, "+family, l.leaves(l.outside(v6, protoUDP, 53, 6000, 0).reversed(0)), actionUnspec)
		l.wants("a later fragment alone, "+family, l.enters(piece(6000, 1, false)), actionShot)
		l.wants("the first of an answer, "+family, l.enters(piece(6000, 2, true)), actionUnspec)
		l.wants("the rest of it, "+family, l.enters(piece(6000, 2, false)), actionUnspec)
		l.wants("the first of what nobody asked for, "+family, l.enters(piece(6001, 3, true)), actionShot)
		l.wants("the rest of it, "+family, l.enters(piece(6001, 3, false)), actionShot)
	}
}

// The ends of a veth: a workload to the host meets the host's ingress policy, and
// the host to a workload its egress policy, besides the workload's own.
func TestHostFirewallWithWorkloads(t *testing.T) {
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			table := PolicyTable{ingress(identityA, policy.ProtoTCP, 8080, 16): allow(1), egress(identityB, policy.ProtoTCP, 80, 16): allow(2)}
			l := guarded(t, HostEnforce, table)
			host := map[bool]netip.Addr{false: host4, true: host6}[v6]
			f := l.tcp(v6, 40000, 8080, syn).to(host)
			l.expect("a to the host", l.sends(l.a, f), actionOK, 0, policy.Egress)
			l.expect("its answer", l.gets(l.a, f.reversed(syn|ack), 0), actionOK, 0, policy.Ingress)
			f.dport = 8081
			l.expect("a to another port", l.sends(l.a, f), actionShot, 133, policy.Ingress)
			back := l.tcp(v6, 50000, 80, syn).to(l.b.addr(v6))
			back.src = host
			l.expect("the host to b", l.gets(l.b, back, 0), actionOK, 0, policy.Ingress)
			back.dport = 81
			l.expect("the host to another port of b", l.gets(l.b, back, 0), actionShot, 133, policy.Egress)
			l.delivered("between workloads", l.sends(l.a, l.tcp(v6, 40000, 81, syn)))
		})
	}
}

// A connection that was there before the firewall, or is forgotten, goes on if policy
// would let who opened it open it now; others end. Real sockets, on a real device.
func TestHostFirewallAdopts(t *testing.T) {
	w := newWired(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	w.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "up0p"}))
	dev := up(t, "up0")
	out := w.connect("up0", workload{v4: mustAddr("203.0.113.9"), v6: mustAddr("2001:db8:9::9"), mac: net.HardwareAddr{2, 0, 0, 0, 9, 9}})
	w.must(netlink.LinkSetHardwareAddr(dev, gatewayMAC))
	for _, a := range []struct{ own, peer string }{{"203.0.113.1", "203.0.113.9"}, {"2001:db8:9::1", "2001:db8:9::9"}} {
		w.sysctl("/proc/sys/net/ipv6/conf/up0/disable_ipv6", "0")
		w.must(netlink.AddrAdd(dev, &netlink.Addr{IPNet: whole(mustAddr(a.own)), Flags: unix.IFA_F_NODAD}))
		w.must(netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: whole(mustAddr(a.peer)), Scope: netlink.SCOPE_LINK}))
		w.must(netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: dev.Attrs().Index, IP: mustAddr(a.peer).AsSlice(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 9, 9}, State: netlink.NUD_PERMANENT,
		}))
		w.must(within(out, func() error {
			l, err := netlink.LinkByName("up0p")
			if err != nil {
				return err
			}
			via := gateway4
			if mustAddr(a.own).Is6() {
				via = gateway6
			}
			return netlink.NeighAdd(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: via.AsSlice(), HardwareAddr: gatewayMAC, State: netlink.NUD_PERMANENT})
		}))
	}
	w.must(w.g.SetNodeAddresses([]netip.Addr{mustAddr("203.0.113.1"), mustAddr("2001:db8:9::1")}))
	w.must(w.g.SetDevice(Device{Ifindex: dev.Attrs().Index}))
	w.must(w.g.AttachDevice(dev.Attrs().Index))
	// The host may open anything: no connection to it is one of these.
	w.must(w.g.SyncPolicy(subjectHost, nil, PolicyTable{ingress(0, policy.ProtoTCP, 443, 16): allow(1), egress(0, 0, 0, 0): allow(2)}))
	for family, own := range map[string]string{"IPv4": "203.0.113.1", "IPv6": "2001:db8:9::1"} {
		t.Run(family, func(t *testing.T) {
			l := w.in(t)
			l.must(l.g.SetSettings(Settings{}))
			w.serve(w.ns, mustAddr(own), 443)
			w.serve(w.ns, mustAddr(own), 80)
			dial := func(port uint16) net.Conn {
				c, err := w.dial(out, "tcp", netip.AddrPortFrom(mustAddr(own), port), patience)
				l.must(err)
				t.Cleanup(func() { c.Close() })
				echoed(t, c)
				return c
			}
			peer := map[bool]netip.Addr{false: mustAddr("203.0.113.9"), true: mustAddr("2001:db8:9::9")}[mustAddr(own).Is6()]
			w.serve(out, peer, 7000)
			mine, err := w.dial(w.ns, "tcp", netip.AddrPortFrom(peer, 7000), patience)
			l.must(err)
			defer mine.Close()
			echoed(t, mine)
			good, bad := dial(443), dial(80)
			l.must(l.g.SetSettings(Settings{Host: HostEnforce, HostSubject: subjectHost}))
			echoed(t, good)
			echoed(t, mine)
			l.must(empty(l.g.objs.HgCtTcp1)) // forgotten
			l.must(empty(l.g.objs.HgCtAny1))
			echoed(t, good)
			echoed(t, mine)
			bad.SetDeadline(time.Now().Add(300 * time.Millisecond)) //nolint:errcheck // the read fails then
			bad.Write([]byte("x"))                                  //nolint:errcheck // it is dropped on the way
			if n, err := bad.Read(make([]byte, 1)); err == nil {
				t.Errorf("read %d bytes over a connection that policy denies", n)
			}
			if c, err := w.dial(out, "tcp", netip.AddrPortFrom(mustAddr(own), 80), 300*time.Millisecond); err == nil {
				c.Close()
				t.Error("connected against host policy")
			}
			dial(443).Close()
		})
	}
}

// TestHostFirewallForEverybody: what the host's sockets take though no address of it is
// written there is judged too, whatever the frame's own address.
func TestHostFirewallForEverybody(t *testing.T) {
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			l := guarded(t, HostEnforce, hostTable)
			addresses := []string{"255.255.255.255", "224.0.0.251", "169.254.7.7", "0.0.0.0"}
			if v6 {
				addresses = []string{"ff02::fb", "ff05::2", "fe80::7"}
			}
			for _, to := range addresses {
				f := l.outside(v6, protoUDP, 5353, 5353, 0)
				f.dst = netip.MustParseAddr(to)
				l.wants(to, l.enters(f), actionShot)
			}
		})
	}
}
