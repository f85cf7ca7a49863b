package bpf

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
)

func TestSpoofedSources(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		f := l.tcp(v6, 40000, 80, syn)
		for _, c := range []struct {
			name   string
			from   func(l *lab) int
			packet func(f frame) frame
			reason uint8
		}{
			{"another workload's address", nil, func(f frame) frame { f.src = l.b.addr(v6); f.dst = l.a.addr(v6); return f }, 132},
			{"a free address of the prefix", nil, func(f frame) frame { f.src = f.src.Prev(); return f }, 132},
			{"the world's address", nil, func(f frame) frame {
				f.src = world4
				if v6 {
					f.src = world6
				}
				return f
			}, 132},
			{"the host's address", nil, func(f frame) frame {
				f.src = host4
				if v6 {
					f.src = host6
				}
				return f
			}, 132},
			{"its own address by another's device", func(l *lab) int { return l.b.ifindex }, func(f frame) frame { return f }, 132},
			{"another link address", nil, func(f frame) frame { f.srcMAC = l.b.mac; return f }, 130},
			{"the gateway's link address", nil, func(f frame) frame { f.srcMAC = gatewayMAC; return f }, 130},
			{"one bit of the link address", nil, func(f frame) frame {
				f.srcMAC = append(net.HardwareAddr{}, f.srcMAC...)
				f.srcMAC[5] ^= 1
				return f
			}, 130},
		} {
			t.Run(family+" "+c.name, func(t *testing.T) {
				l := l.in(t)
				l.reset(nil, nil)
				ifindex := l.a.ifindex
				if c.from != nil {
					ifindex = c.from(l)
				}
				r := l.run(l.g.objs.HgFromWorkload, ifindex, 0, c.packet(f).bytes())
				l.dropped("SYN", r, c.reason)
			})
		}
	}
}

// change is one way to spoil a packet that would pass.
type change struct {
	name   string
	packet func(l *lab) []byte
	reason uint8
}

// raw is a packet changed after its checksums were made.
func raw(f frame, at int, b ...byte) []byte {
	p := f.bytes()
	copy(p[at:], b)
	return p
}

var malformed = []change{
	{"IPv4 that says version 6", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 14, 0x65) }, 134},
	{"IPv4 that says version 0", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 14, 0x05) }, 134},
	{"IPv6 that says version 4", func(l *lab) []byte { return raw(l.tcp(true, 1, 80, syn), 14, 0x40) }, 134},
	{"header length 0", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 14, 0x40) }, 134},
	{"header length 4", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 14, 0x44) }, 134},
	{"header longer than the packet", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 14, 0x4f) }, 134},
	{"IPv4 in an IPv6 frame", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 12, 0x86, 0xdd) }, 134},
	{"neither IP nor ARP", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 12, 0x88, 0xb5) }, 139},
	{"802.3 length", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 12, 0, 60) }, 139},
	{"VLAN in the frame", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 12, 0x81, 0) }, 182},
	{"provider VLAN in the frame", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 12, 0x88, 0xa8) }, 182},
	{"length beyond the packet", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 16, 0xff, 0xff) }, 134},
	{"length within the TCP header", func(l *lab) []byte { return raw(l.tcp(false, 1, 80, syn), 16, 0, 39) }, 134},
	{"IPv6 length within the TCP header", func(l *lab) []byte { return raw(l.tcp(true, 1, 80, syn), 18, 0, 19) }, 134},
	{"IPv6 length 0", func(l *lab) []byte { return raw(l.tcp(true, 1, 80, syn), 18, 0, 0) }, 134},
	{"SCTP data of no association", func(l *lab) []byte { return l.sctp(false, 1, 80, sctpData).bytes() }, 163},
	{"IPv6 SCTP data of no association", func(l *lab) []byte { return l.sctp(true, 1, 80, sctpData).bytes() }, 163},
	{"GRE", func(l *lab) []byte { return l.packet(false, protoGRE).bytes() }, 142},
	{"ICMP of the other family, IPv4", func(l *lab) []byte { f := l.echo(false, 1); f.proto = protoICMPv6; return f.bytes() }, 142},
	{"ICMP of the other family, IPv6", func(l *lab) []byte { f := l.echo(true, 1); f.proto = protoICMP; return f.bytes() }, 142},
	{"ICMP redirect", func(l *lab) []byte { f := l.echo(false, 0); f.icmpType = 5; return f.bytes() }, 144},
	{"source quench", func(l *lab) []byte { f := l.echo(false, 0); f.icmpType = 4; return f.bytes() }, 144},
	{"ICMP timestamp", func(l *lab) []byte { f := l.echo(false, 0); f.icmpType = 13; return f.bytes() }, 144},
	{"unknown ICMPv6 error", func(l *lab) []byte { f := l.echo(true, 0); f.icmpType = 5; return f.bytes() }, 146},
	{"multicast listener report", func(l *lab) []byte { f := l.echo(true, 0); f.icmpType = 143; return f.bytes() }, 146},
	{"echo reply that nobody asked for", func(l *lab) []byte { f := l.echo(false, 7); f.icmpType = 0; return f.bytes() }, 163},
	{"IPv6 echo reply that nobody asked for", func(l *lab) []byte { f := l.echo(true, 7); f.icmpType = 129; return f.bytes() }, 163},
	{"mapped source", func(l *lab) []byte {
		f := l.tcp(true, 1, 80, syn)
		f.src = netip.AddrFrom16(l.a.v4.As16())
		return f.bytes()
	}, 132},
	{"mapped destination", func(l *lab) []byte {
		return l.tcp(true, 1, 80, syn).to(netip.AddrFrom16(l.b.v4.As16())).bytes()
	}, 134},
	{"ACK of no connection", func(l *lab) []byte { return l.tcp(false, 1, 80, ack).bytes() }, 163},
	{"SYN and ACK of no connection", func(l *lab) []byte { return l.tcp(false, 1, 80, syn|ack).bytes() }, 163},
	{"RST of no connection", func(l *lab) []byte { return l.tcp(false, 1, 80, rst).bytes() }, 163},
	{"FIN of no connection", func(l *lab) []byte { return l.tcp(true, 1, 80, fin|ack).bytes() }, 163},
	{"SYN and FIN", func(l *lab) []byte { return l.tcp(false, 1, 80, syn|fin).bytes() }, 163},
	{"SYN and RST", func(l *lab) []byte { return l.tcp(false, 1, 80, syn|rst).bytes() }, 163},
	{"no TCP flags", func(l *lab) []byte { return l.tcp(true, 1, 80, 0).bytes() }, 163},
	{"all TCP flags", func(l *lab) []byte { return l.tcp(true, 1, 80, 0xff).bytes() }, 163},
}

func TestMalformed(t *testing.T) {
	l := newLab(t)
	for _, c := range malformed {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			l.reset(nil, nil)
			l.dropped("packet", l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, c.packet(l)), c.reason)
			if events := l.seen(); len(events) > 1 {
				t.Errorf("%d events of one packet", len(events))
			}
			// From the other side nothing of it passes either.
			r := l.run(l.g.objs.HgToWorkload, l.b.ifindex, 0, c.packet(l))
			if r.action != actionShot {
				t.Errorf("to the workload: action %d", r.action)
			}
			if err := l.g.Conntrack().All(func(c Connection) bool { t.Errorf("remembered %+v", c); return true }); err != nil {
				t.Error(err)
			}
		})
	}
}

// Options move the ports: the gate must not read those that options pretend.
func TestIPv4Options(t *testing.T) {
	l := newLab(t)
	table := PolicyTable{egress(0, policy.ProtoTCP, 80, 16): allow(1)}
	for n := 4; n <= 40; n += 4 {
		options := make([]byte, n) // each word would be read as ports 80 → 80
		for i := range options {
			options[i] = []byte{0, 80}[i%2]
		}
		l.reset(table, nil)
		f := l.tcp(false, 40000, 80, syn)
		f.options = options
		r := l.sends(l.a, f)
		l.delivered("allowed port", r)
		l.rewritten(f, l.b, r.data)
		f.dport = 81
		l.dropped("denied port behind options", l.sends(l.a, f), 133)
	}
}

// Every length of every kind of packet. The kernel runs a program by itself only
// on a whole IP header; shorter ones go over a device.
func TestTruncated(t *testing.T) {
	l := newLab(t)
	l.must(l.g.AttachWorkload(l.a.ifindex))
	options := l.tcp(false, 1, 80, syn)
	options.options = make([]byte, 40)
	for name, f := range map[string]frame{
		"TCP": l.tcp(false, 1, 80, syn), "UDP": l.udp(false, 1, 80), "echo": l.echo(false, 1), "options": options,
		"IPv6 TCP": l.tcp(true, 1, 80, syn), "IPv6 UDP": l.udp(true, 1, 80), "IPv6 echo": l.echo(true, 1),
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			f.payload = nil
			whole := f.bytes()
			l3 := 34
			if f.src.Is6() {
				l3 = 54
			}
			l.reset(nil, nil)
			for n := 15; n < len(whole); n++ {
				if n < l3 {
					l.wire("wap", whole[:n])
					l.await("134 egress")
					l.forget()
					continue
				}
				l.dropped(name, l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, whole[:n]), 134)
				if r := l.run(l.g.objs.HgToWorkload, l.b.ifindex, 0, whole[:n]); r.action != actionShot {
					t.Errorf("%d bytes to a workload: action %d", n, r.action)
				}
				l.forget()
			}
			l.delivered("whole", l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, whole))
		})
	}
}

// wire sends a frame out of a device.
func (l *lab) wire(device string, b []byte) {
	l.Helper()
	dev, err := net.InterfaceByName(device)
	l.must(err)
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	l.must(err)
	defer unix.Close(s)
	l.must(unix.Sendto(s, b, 0, &unix.SockaddrLinklayer{
		Protocol: binary.NativeEndian.Uint16(b[12:]), Ifindex: dev.Index, Halen: 6,
	}))
}

// await waits for counters.
func (l *lab) await(want string) {
	l.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got := l.counted()
		if got == want {
			return
		}
		if time.Now().After(end) {
			l.Fatalf("counted %q, want %q", got, want)
		}
	}
}

// Whatever the bytes, a packet passes only if the policy has a word for it; here
// it has none, so nothing does.
func TestRandomBytes(t *testing.T) {
	l := newLab(t)
	l.reset(PolicyTable{}, PolicyTable{})
	r := rand.New(rand.NewPCG(1, 2))
	base := [][]byte{
		l.tcp(false, 1, 80, syn).bytes(), l.udp(true, 1, 80).bytes(), l.echo(true, 1).bytes(), l.echo(false, 1).bytes(),
		arp(1, l.a.mac, l.a.v4, l.b.v4), solicit(l.a.mac, l.a.v6, l.b.v6).bytes(),
	}
	for range 20000 {
		b := append([]byte{}, base[r.IntN(len(base))]...)
		for range 1 + r.IntN(4) {
			b[12+r.IntN(len(b)-12)] = byte(r.Uint32())
		}
		out, err := l.try(l.g.objs.HgFromWorkload, l.a.ifindex, 0, b)
		if err == nil && out.action != actionShot {
			t.Fatalf("action %d for %x", out.action, b)
		}
	}
}
