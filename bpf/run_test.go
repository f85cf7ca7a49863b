package bpf

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/headgate/headgate/policy"
)

// skb is struct __sk_buff (linux/bpf.h). The kernel wants every field zero that
// a test may not set.
type skb struct {
	_              [2]uint32 // len, pkt_type
	Mark           uint32
	_              [5]uint32 // queue_mapping … vlan_proto
	Priority       uint32
	IngressIfindex uint32
	Ifindex        uint32
	_              [29]uint32 // tc_index …
	_              [8]uint32
}

// result is what a program made of a packet.
type result struct {
	action uint32
	mark   uint32
	data   []byte
}

// try runs a program once, as if the packet had come by that device.
func (l *lab) try(p *ebpf.Program, ifindex int, mark uint32, packet []byte) (result, error) {
	in := skb{Mark: mark, Ifindex: uint32(ifindex)}
	var out skb
	o := ebpf.RunOptions{Data: packet, DataOut: make([]byte, len(packet)+256), Context: in, ContextOut: &out, Repeat: 1}
	action, err := p.Run(&o)
	return result{action: action, mark: out.Mark, data: o.DataOut}, err
}

func (l *lab) run(p *ebpf.Program, ifindex int, mark uint32, packet []byte) result {
	l.Helper()
	r, err := l.try(p, ifindex, mark, packet)
	l.must(err)
	return r
}

// sends is what becomes of a packet that a workload sends.
func (l *lab) sends(w workload, f frame) result {
	l.Helper()
	return l.run(l.g.objs.HgFromWorkload, w.ifindex, 0, f.bytes())
}

// gets is what becomes of a packet that the host's stack sends to a workload.
func (l *lab) gets(w workload, f frame, mark uint32) result {
	l.Helper()
	return l.run(l.g.objs.HgToWorkload, w.ifindex, mark, f.bytes())
}

// addr is the workload's address of a family.
func (w workload) addr(v6 bool) netip.Addr {
	if v6 {
		return w.v6
	}
	return w.v4
}

func (l *lab) packet(v6 bool, proto uint8) frame {
	return frame{
		dstMAC: gatewayMAC, srcMAC: l.a.mac, src: l.a.addr(v6), dst: l.b.addr(v6), ttl: 64, proto: proto,
		payload: []byte("payload"),
	}
}

// tcp, udp and echo are packets from a to b.
func (l *lab) tcp(v6 bool, sport, dport uint16, flags uint8) frame {
	f := l.packet(v6, protoTCP)
	f.sport, f.dport, f.flags = sport, dport, flags
	return f
}

func (l *lab) udp(v6 bool, sport, dport uint16) frame {
	f := l.packet(v6, protoUDP)
	f.sport, f.dport = sport, dport
	return f
}

func (l *lab) sctp(v6 bool, sport, dport uint16, chunk uint8) frame {
	f := l.packet(v6, protoSCTP)
	f.sport, f.dport, f.flags = sport, dport, chunk
	return f
}

func (l *lab) echo(v6 bool, id uint16) frame {
	f := l.packet(v6, protoICMP)
	f.icmpType, f.id = 8, id
	if v6 {
		f.proto, f.icmpType = protoICMPv6, 128
	}
	return f
}

// to is the packet with another destination.
func (f frame) to(dst netip.Addr) frame {
	f.dst = dst
	return f
}

// counted says which counters are not zero: "reason direction" once a packet.
func (l *lab) counted() string {
	l.Helper()
	drops, err := l.g.Drops()
	l.must(err)
	var out []string
	for _, d := range drops {
		for range d.Packets {
			out = append(out, fmt.Sprintf("%d %s", d.Reason, d.Direction))
		}
	}
	return strings.Join(out, ", ")
}

// expect checks the action, and the one counter that moved.
func (l *lab) expect(what string, r result, action uint32, reason uint8, d policy.Direction) {
	l.Helper()
	if r.action != action {
		l.Errorf("%s: action %d, want %d", what, r.action, action)
	}
	if got, want := l.counted(), fmt.Sprintf("%d %s", reason, d); got != want {
		l.Errorf("%s: counted %q, want %q", what, got, want)
	}
	l.forget()
}

// delivered and dropped are expect for what a workload sends.
func (l *lab) delivered(what string, r result) {
	l.Helper()
	l.expect(what, r, actionSend, 0, policy.Egress)
}

func (l *lab) dropped(what string, r result, reason uint8) {
	l.Helper()
	l.expect(what, r, actionShot, reason, policy.Egress)
}

// rewritten checks the bytes of a delivered packet: the workload's and the
// gateway's link address, one hop less, a right checksum, and nothing else.
func (l *lab) rewritten(f frame, to workload, got []byte) {
	l.Helper()
	want := f
	want.dstMAC, want.srcMAC = to.mac, gatewayMAC
	want.ttl--
	if !bytes.Equal(got, want.bytes()) {
		l.Errorf("delivered\n%x, want\n%x", got, want.bytes())
	}
}

// told checks events, leaving out when they were.
func (l *lab) told(want ...Event) {
	l.Helper()
	got := l.seen()
	for i := range got {
		got[i].Time, got[i].Match = time.Time{}, 0
	}
	if !slices.Equal(got, want) {
		l.Errorf("events:\n%+v, want\n%+v", got, want)
	}
}

// eventOf is the event that a packet from a device gives.
func (f frame) eventOf(ifindex int, kind EventKind, d policy.Direction, e PolicyEntry, reason uint8) Event {
	out := Event{
		Kind: kind, Source: f.source(), Destination: f.target(), Ifindex: uint32(ifindex),
		Length: uint32(len(f.bytes())), Rule: e.Rule, Set: e.Set, Verdict: e.Verdict, Reason: reason, Direction: d,
		Proto: policy.Proto(f.proto), TCPFlags: f.flags, ICMPType: f.icmpType, ICMPCode: f.icmpCode,
		SourceIdentity: identityA, DestinationIdentity: identityB,
	}
	if f.icmpType == 8 || f.icmpType == 128 { // the id stands on the asking side
		out.Source = netip.AddrPortFrom(f.src, f.id)
	}
	copy(out.DestinationMAC[:], f.dstMAC)
	copy(out.SourceMAC[:], f.srcMAC)
	return out
}

func gateEventOf(b []byte) *gateEvent { return (*gateEvent)(unsafe.Pointer(&b[0])) }
