package bpf

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Numbers of the lab's services, and the port they are asked at.
const (
	serviceTCP, serviceUDP = 7, 8
	servicePort            = 80
	backendPort            = 8080
)

// vip is a service's address, which nothing else in the lab has.
func vip(v6 bool) netip.Addr {
	if v6 {
		return mustAddr("2001:db8:77::1")
	}
	return mustAddr("203.0.113.7")
}

// serve makes two services at vip, over TCP and UDP, of these backends.
func (l *lab) serve(v6 bool, change func(*Service), backends ...netip.AddrPort) (tcp, udp Service) {
	l.Helper()
	l.must(l.g.SetServiceAddress(vip(v6), true))
	all := [2]Service{{Number: serviceTCP, Proto: policy.ProtoTCP}, {Number: serviceUDP, Proto: policy.ProtoUDP}}
	for i := range all {
		s := &all[i]
		s.Addr, s.Backends = netip.AddrPortFrom(vip(v6), servicePort), map[uint32]netip.AddrPort{}
		for j, b := range backends {
			s.Backends[uint32(100*(i+1)+j)] = b
		}
		s.fill()
		if change != nil {
			change(s)
		}
		l.must(l.g.SetService(*s))
	}
	return all[0], all[1]
}

// fill gives backends slots in turn.
func (s *Service) fill() {
	s.Slots = nil
	var numbers []uint32
	for n := range s.Backends {
		numbers = append(numbers, n)
	}
	for i := range ServiceSlots {
		if len(numbers) > 0 {
			s.Slots = append(s.Slots, numbers[i%len(numbers)])
		}
	}
}

func (w workload) backend(v6 bool) netip.AddrPort { return netip.AddrPortFrom(w.addr(v6), backendPort) }

// asked is the packet to vip instead of b.
func (f frame) asked() frame { return f.at(netip.AddrPortFrom(vip(f.src.Is6()), servicePort)) }

func (f frame) at(to netip.AddrPort) frame {
	f.dst, f.dport = to.Addr(), to.Port()
	return f
}

// throughService sends a packet of a to vip and one of b back, and wants each to
// arrive as it must, byte for byte.
func (l *lab) throughService(f frame, there, back uint8) {
	l.Helper()
	at := f.at(l.b.backend(f.src.Is6()))
	r := l.sends(l.a, f.asked().with(there))
	l.delivered("to the service", r)
	l.rewritten(at.with(there), l.b, r.data)
	r = l.answers(at, back)
	l.delivered("its answer", r)
	answer := f.asked().reversed(back)
	l.rewritten(answer, l.a, r.data)
}

func TestService(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		l.reset(nil, nil)
		l.serve(v6, nil, l.b.backend(v6))
		f := l.tcp(v6, 40000, 0, 0)
		l.throughService(f, syn, syn|ack)
		l.throughService(f, ack, ack)
		e, where := l.entry(f.at(l.b.backend(v6)))
		if where != "tcp" || e.RevNat != serviceTCP {
			t.Errorf("the connection is in %q, %+v", where, e)
		}
		if n, err := entries(l.g.objs.HgSvcNat1); err != nil || n != 1 {
			t.Errorf("%d translations of established connections, %v", n, err)
		}
		if n, err := entries(l.g.objs.HgSvcNew1); err != nil || n != 0 {
			t.Errorf("%d translations that can be evicted, %v", n, err)
		}
		l.throughService(f, ack|fin, ack|fin)
		l.throughService(f.with(0), ack, ack)
		l.throughService(f, syn, syn|ack) // the port again

		l.throughService(l.udp(v6, 40000, 0), 0, 0)
		l.throughService(l.udp(v6, 40000, 0), 0, 0)
	}
}

// A datagram without a checksum stays so.
func TestServiceWithoutChecksum(t *testing.T) {
	l := newLab(t)
	l.serve(false, nil, l.b.backend(false))
	const at = 14 + 20 + 6
	plain := func(f frame) []byte {
		b := f.bytes()
		binary.BigEndian.PutUint16(b[at:], 0)
		return b
	}
	f := l.udp(false, 40000, 0)
	r := l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, plain(f.asked()))
	l.delivered("datagram", r)
	want := f.at(l.b.backend(false))
	want.dstMAC, want.srcMAC, want.ttl = l.b.mac, gatewayMAC, want.ttl-1
	if string(r.data) != string(plain(want)) {
		t.Errorf("delivered\n%x, want\n%x", r.data, plain(want))
	}
}

// Policy judges the backend, at its port, and says so.
func TestServicePolicy(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		f := l.tcp(v6, 40000, 0, syn)
		backend := PolicyTable{egress(identityB, policy.ProtoTCP, backendPort, 16): allow(1)}
		l.reset(backend, PolicyTable{ingress(identityA, policy.ProtoTCP, backendPort, 16): allow(2)})
		l.serve(v6, nil, l.b.backend(v6))
		l.delivered("allowed at the backend", l.sends(l.a, f.asked()))

		l.reset(PolicyTable{egress(0, policy.ProtoTCP, servicePort, 16): allow(1)}, nil)
		l.serve(v6, nil, l.b.backend(v6))
		l.dropped("allowed at the service's port only", l.sends(l.a, f.asked()), 133)
		want := f.at(l.b.backend(v6)).eventOf(l.a.ifindex, EventDrop, policy.Egress, PolicyEntry{}, 133)
		l.sends(l.a, f.asked())
		l.told(want)

		l.reset(backend, PolicyTable{ingress(identityA, 0, 0, 0): deny(3)})
		l.serve(v6, nil, l.b.backend(v6))
		l.expect("denied at the backend", l.sends(l.a, f.asked()), actionShot, 181, policy.Ingress)
	}
}

func TestServiceRefusals(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		for _, c := range []struct {
			name     string
			packet   frame
			backends []netip.AddrPort
			before   func(l *lab)
			reason   uint8
		}{
			{"no backend", l.tcp(v6, 1, 0, syn).asked(), nil, nil, 158},
			{"no backend, UDP", l.udp(v6, 1, 0).asked(), nil, nil, 158},
			{"another port", l.tcp(v6, 1, 81, syn).to(vip(v6)), []netip.AddrPort{l.b.backend(v6)}, nil, 246},
			{"ping", l.echo(v6, 1).to(vip(v6)), []netip.AddrPort{l.b.backend(v6)}, nil, 246},
			{"no connection", l.tcp(v6, 1, 0, ack).asked(), []netip.AddrPort{l.b.backend(v6)}, nil, 163},
			{"connected to the backend", l.tcp(v6, 1, 0, syn).asked(), []netip.AddrPort{l.b.backend(v6)}, func(l *lab) {
				l.open(l.tcp(v6, 1, backendPort, 0))
			}, 245},
			{"connected to the service", l.tcp(v6, 1, backendPort, syn), []netip.AddrPort{l.b.backend(v6)}, func(l *lab) {
				l.throughService(l.tcp(v6, 1, 0, 0), syn, syn|ack)
			}, 245},
			{"only the host's sockets may", l.tcp(v6, 1, 0, syn).asked(), []netip.AddrPort{l.b.backend(v6)}, func(l *lab) {
				l.serve(v6, func(s *Service) { s.HostOnly = true })
			}, 246},
		} {
			t.Run(family+" "+c.name, func(t *testing.T) {
				l := l.in(t)
				l.reset(nil, nil)
				l.serve(v6, nil, c.backends...)
				if c.before != nil {
					c.before(l)
				}
				l.dropped("packet", l.sends(l.a, c.packet), c.reason)
			})
		}
	}
}

// An address that has services among other things, as the node's own.
func TestServiceOnNode(t *testing.T) {
	l := newLab(t)
	s := Service{
		Number: serviceTCP, Addr: netip.AddrPortFrom(host4, 30080), Proto: policy.ProtoTCP,
		Backends: map[uint32]netip.AddrPort{1: l.b.backend(false)},
	}
	s.fill()
	l.must(l.g.SetServiceAddress(host4, false))
	l.must(l.g.SetService(s))
	f := l.tcp(false, 40000, 30080, syn).to(host4)
	r := l.sends(l.a, f)
	l.delivered("the service's port", r)
	l.rewritten(f.at(l.b.backend(false)), l.b, r.data)
	f.dport = 22
	l.expect("another", l.sends(l.a, f), actionOK, 0, policy.Egress)
}

// A backend of the host: what answers is its stack.
func TestServiceOfHost(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		l.reset(nil, nil)
		backend := netip.AddrPortFrom(host4, backendPort)
		if v6 {
			backend = netip.AddrPortFrom(host6, backendPort)
		}
		l.serve(v6, nil, backend)
		f := l.tcp(v6, 40000, 0, syn)
		r := l.sends(l.a, f.asked())
		l.expect("SYN", r, actionOK, 0, policy.Egress)
		if string(r.data) != string(f.at(backend).bytes()) {
			t.Errorf("the host gets\n%x", r.data)
		}
		answer := f.at(backend).reversed(syn | ack)
		r = l.gets(l.a, answer, 0)
		l.expect("SYN-ACK", r, actionOK, 0, policy.Ingress)
		answer.src, answer.sport = vip(v6), servicePort
		if string(r.data) != string(answer.bytes()) {
			t.Errorf("the client gets\n%x, want\n%x", r.data, answer.bytes())
		}
	}
}

// A port with L7 rules behind a service: the proxy meets the backend's address on
// both sides, the client the service's.
func TestServiceThroughProxy(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		l.reset(redirecting(setOne, 0))
		port := listen(t, map[bool]string{false: "127.0.0.1:0", true: "[::1]:0"}[v6])
		l.must(l.g.SetRoute(AnyRoute(1), port))
		l.serve(v6, nil, l.b.backend(v6))
		f := l.tcp(v6, 40000, 0, syn)
		at := f.at(l.b.backend(v6))
		l.sends(l.a, f.asked())
		if got := l.counted(); got != foundSocket {
			t.Fatalf("%s: counted %q, want %q", family, got, foundSocket)
		}
		l.forget()
		if c, ok := l.g.Conntrack().Lookup(at.source(), at.target()); !ok || !c.Redirected || c.Service != serviceTCP {
			t.Errorf("%s: the connection is %+v, %v", family, c, ok)
		}
		answer := at.reversed(syn | ack)
		answer.srcMAC, answer.dstMAC = gatewayMAC, l.a.mac
		r := l.gets(l.a, answer, redirect.MarkFromProxy)
		l.expect("the proxy's answer", r, actionOK, 0, policy.Ingress)
		answer.src, answer.sport = vip(v6), servicePort
		if string(r.data) != string(answer.bytes()) {
			t.Errorf("%s: the client gets\n%x, want\n%x", family, r.data, answer.bytes())
		}
		onward := at
		onward.srcMAC, onward.dstMAC = gatewayMAC, l.b.mac
		r = l.gets(l.b, onward, redirect.MarkFromProxy)
		l.expect("the proxy's SYN", r, actionOK, 0, policy.Ingress)
		if string(r.data) != string(onward.bytes()) {
			t.Errorf("%s: the server gets\n%x", family, r.data)
		}
	}
}

// spread opens connections from many ports and counts where they went.
func (l *lab) spread(n int) map[netip.Addr]int {
	l.Helper()
	out := map[netip.Addr]int{}
	for i := range n {
		r := l.sends(l.a, l.tcp(false, uint16(20000+i), 0, syn).asked())
		if r.action != actionSend && r.action != actionOK {
			l.Fatalf("action %d, counted %s", r.action, l.counted())
		}
		out[netip.AddrFrom4([4]byte(r.data[14+16:]))]++
	}
	l.forget()
	return out
}

// What is removed gets no new connection, and keeps those that it has.
func TestServiceBackendRemoved(t *testing.T) {
	l := newLab(t)
	host := netip.AddrPortFrom(host4, backendPort)
	s, _ := l.serve(false, nil, l.b.backend(false), host)
	var open []frame
	for port := uint16(40000); len(open) < 5; port++ {
		f := l.tcp(false, port, 0, 0)
		if r := l.sends(l.a, f.asked().with(syn)); r.action == actionSend { // else it is the host's
			l.forget()
			l.throughService(f, ack, ack)
			open = append(open, f)
		}
	}
	l.forget()
	if got := l.spread(200); got[l.b.v4] < 60 || got[host4] < 60 {
		t.Errorf("two backends got %v", got)
	}
	for n, b := range s.Backends {
		if b != host {
			delete(s.Backends, n)
			s.fill()
			l.must(l.g.SetService(s))
			l.must(l.g.DeleteServiceBackend(n))
		}
	}
	for _, f := range open {
		l.throughService(f, ack, ack)
	}
	l.must(empty(l.g.objs.HgCtAny1)) // those of spread
	if got := l.spread(200); got[host4] != 200 {
		t.Errorf("the one that is left got %v", got)
	}
	// Only cutting ends them.
	if n, err := l.g.CutService(serviceTCP, l.b.backend(false)); err != nil || n != 5 {
		t.Errorf("cut %d connections, %v", n, err)
	}
	for _, f := range open {
		l.dropped("of a connection that was cut", l.sends(l.a, f.asked().with(ack)), 163)
	}
}

func TestServiceAffinity(t *testing.T) {
	l := newLab(t)
	stays := func(s *Service) { s.Affinity = time.Hour }
	s, _ := l.serve(false, stays, l.b.backend(false), netip.AddrPortFrom(host4, backendPort))
	got := l.spread(100)
	if len(got) != 1 {
		t.Errorf("one client's connections went to %v", got)
	}
	for n, b := range s.Backends { // a client whose backend is gone gets another
		if got[b.Addr()] > 0 {
			delete(s.Backends, n)
			s.fill()
			l.must(l.g.SetService(s))
			l.must(l.g.DeleteServiceBackend(n))
		}
	}
	l.must(empty(l.g.objs.HgCtAny1))
	if then := l.spread(100); len(then) != 1 || fmt.Sprint(then) == fmt.Sprint(got) {
		t.Errorf("they went to %v, and when that was gone to %v", got, then)
	}

	// And when its time is over, its slot decides again.
	l.reset(nil, nil)
	l.serve(false, func(s *Service) { s.Affinity = time.Second }, l.b.backend(false), netip.AddrPortFrom(host4, backendPort))
	seen := map[netip.Addr]int{}
	for i := range 40 {
		r := l.sends(l.a, l.tcp(false, uint16(20000+i), 0, syn).asked())
		seen[netip.AddrFrom4([4]byte(r.data[14+16:]))]++
		var k gateSvcAffinityKey
		var v gateSvcAffinity
		l.must(l.g.objs.HgSvcAffin1.NextKey(nil, &k))
		l.must(l.g.objs.HgSvcAffin1.Lookup(k, &v))
		v.Used = 1 // when the machine started
		l.must(l.g.objs.HgSvcAffin1.Put(k, v))
	}
	if len(seen) != 2 {
		t.Errorf("they all went to %v", seen)
	}
}

// With no room for another the next is refused, and those that are there live.
func TestServiceFull(t *testing.T) {
	const room = 64
	l := newLab(t, func(o *Options) { o.MaxServiced = room })
	l.serve(false, nil, l.b.backend(false))
	var open []frame
	refused := 0
	for i := range 2 * room {
		f := l.tcp(false, uint16(20000+i), 0, 0)
		l.sends(l.a, f.asked().with(syn))
		l.answers(f.at(l.b.backend(false)), syn|ack)
		l.forget()
		if r := l.sends(l.a, f.asked().with(ack)); r.action == actionSend {
			open = append(open, f)
			l.forget()
			continue
		}
		l.expect("ACK", result{action: actionShot}, actionShot, 247, policy.Egress)
		refused++
	}
	if len(open) < room || refused == 0 {
		t.Fatalf("%d are open, %d were refused", len(open), refused)
	}
	for _, f := range open {
		l.throughService(f, ack, ack)
	}
}

// Translations go with their connections.
func TestCollectServices(t *testing.T) {
	l := newLab(t)
	l.serve(false, nil, l.b.backend(false))
	f, g := l.tcp(false, 40000, 0, 0), l.tcp(false, 40001, 0, 0)
	for _, f := range []frame{f, g} {
		l.throughService(f, syn, syn|ack)
		l.throughService(f, ack, ack)
	}
	ct := l.g.Conntrack()
	if _, err := ct.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.throughService(f, ack, ack)
	k := f.at(l.b.backend(false)).key()
	l.must(l.g.objs.HgCtTcp1.Delete(&k))
	if _, err := ct.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := entries(l.g.objs.HgSvcNat1); err != nil || n != 1 {
		t.Errorf("%d translations are left, %v", n, err)
	}
	l.throughService(g, ack, ack)
}

func TestServicesListed(t *testing.T) {
	l := newLab(t)
	tcp, udp := l.serve(true, func(s *Service) { s.Affinity = time.Minute }, l.b.backend(true))
	got, addrs, err := l.g.Services()
	l.must(err)
	if len(got) != 2 || len(addrs) != 1 || !addrs[vip(true)] {
		t.Fatalf("%v, %v", got, addrs)
	}
	for _, s := range got {
		want := tcp
		if s.Number == udp.Number {
			want = udp
		}
		if fmt.Sprint(s) != fmt.Sprint(want) {
			t.Errorf("%+v, want %+v", s, want)
		}
	}
	l.must(l.g.DeleteService(tcp))
	l.must(l.g.DeleteService(udp))
	l.must(l.g.DeleteServiceAddress(vip(true)))
	if got, addrs, err = l.g.Services(); err != nil || len(got)+len(addrs) > 0 {
		t.Errorf("left: %v, %v, %v", got, addrs, err)
	}
	f := l.tcp(true, 1, 0, syn).asked()
	l.sends(l.a, f)
	if got := l.counted(); got != "0 egress, 169 egress" { // to others, where no route leads
		t.Errorf("to what was a service: %s", got)
	}
}

// The kernel repeats the program on what it made of the packet, so the service and
// its backend are one address here: all is translated, and nothing changes.
func BenchmarkService(b *testing.B) {
	for family, v6 := range families {
		l := benchLab(b, nil, nil)
		f := l.tcp(v6, 40000, servicePort, 0).to(vip(v6))
		l.must(l.g.SetIdentity(netip.PrefixFrom(f.dst, f.dst.BitLen()), policy.IdentityHost))
		open := func() {
			l.sends(l.a, f.with(syn))
			l.gets(l.a, f.reversed(syn|ack), 0)
			l.sends(l.a, f.with(ack))
		}
		open()
		b.Run(family+"/without", func(b *testing.B) {
			l.perPacket(b, l.g.objs.HgFromWorkload, f.with(ack), actionOK)
		})
		l.must(empty(l.g.objs.HgCtTcp1))
		l.serve(v6, nil, f.target())
		open()
		b.Run(family+"/with", func(b *testing.B) {
			l.perPacket(b, l.g.objs.HgFromWorkload, f.with(ack), actionOK)
		})
	}
}

// What a backend or a client says of the other's packets reaches it as if the service
// had been spoken to, or had spoken.
func TestServiceErrors(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		l.reset(nil, nil)
		l.serve(v6, nil, l.b.backend(v6))
		f := l.udp(v6, 40000, 0)
		l.throughService(f, 0, 0)
		at, header := f.at(l.b.backend(v6)), 20
		if v6 {
			header = 40
		}
		// about quotes a packet, with the checksum of its transport as it was sent.
		about := func(sent, seen frame) []byte {
			q := seen.bytes()[14 : 14+header+8]
			copy(q[header+6:], sent.bytes()[14+header+6:14+header+8])
			return q
		}
		unreachable := func(from, to netip.Addr, mac net.HardwareAddr, quote []byte) frame {
			e := frame{dstMAC: gatewayMAC, srcMAC: mac, src: from, dst: to, ttl: 64, proto: protoICMP, icmpType: 3, icmpCode: 3, payload: quote}
			if v6 {
				e.proto, e.icmpType, e.icmpCode = protoICMPv6, 1, 4
			}
			return e
		}
		r := l.sends(l.b, unreachable(l.b.addr(v6), l.a.addr(v6), l.b.mac, about(at, at)))
		l.delivered(family+": of the backend", r)
		l.rewritten(unreachable(vip(v6), l.a.addr(v6), l.b.mac, about(at, f.asked())), l.a, r.data)

		answer, seen := at.reversed(0), f.asked().reversed(0)
		r = l.sends(l.a, unreachable(l.a.addr(v6), vip(v6), l.a.mac, about(seen, seen)))
		l.delivered(family+": of the client", r)
		l.rewritten(unreachable(l.a.addr(v6), l.b.addr(v6), l.a.mac, about(seen, answer)), l.b, r.data)

		l.dropped(family+": of no connection", l.sends(l.a, unreachable(l.a.addr(v6), vip(v6), l.a.mac, about(seen, l.udp(v6, 50000, 0).asked().reversed(0)))), 239)
	}
}
