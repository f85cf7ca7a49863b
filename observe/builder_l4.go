package observe

import (
	"net"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/headgate/headgate/policy"
)

// The bits of TCP's flags byte.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
	flagURG
	flagECE
	flagCWR
)

func ethernet(r *Record) *flowpb.Ethernet {
	if r.SourceMAC == ([6]byte{}) && r.DestinationMAC == ([6]byte{}) {
		return nil
	}
	return &flowpb.Ethernet{
		Source:      net.HardwareAddr(r.SourceMAC[:]).String(),
		Destination: net.HardwareAddr(r.DestinationMAC[:]).String(),
	}
}

func layer4(r *Record, src, dst uint16) *flowpb.Layer4 {
	s, d := uint32(src), uint32(dst)
	switch r.Proto {
	case policy.ProtoTCP:
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{
			SourcePort: s, DestinationPort: d, Flags: tcpFlags(r.TCPFlags),
		}}}
	case policy.ProtoUDP:
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_UDP{UDP: &flowpb.UDP{SourcePort: s, DestinationPort: d}}}
	case policy.ProtoSCTP:
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_SCTP{SCTP: &flowpb.SCTP{SourcePort: s, DestinationPort: d}}}
	case policy.ProtoICMP:
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{
			Type: uint32(r.ICMPType), Code: uint32(r.ICMPCode),
		}}}
	case policy.ProtoICMPv6:
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv6{ICMPv6: &flowpb.ICMPv6{
			Type: uint32(r.ICMPType), Code: uint32(r.ICMPCode),
		}}}
	}
	return nil
}

func tcpFlags(f uint8) *flowpb.TCPFlags {
	if f == 0 {
		return nil
	}
	return &flowpb.TCPFlags{
		FIN: f&flagFIN != 0, SYN: f&flagSYN != 0, RST: f&flagRST != 0, PSH: f&flagPSH != 0,
		ACK: f&flagACK != 0, URG: f&flagURG != 0, ECE: f&flagECE != 0, CWR: f&flagCWR != 0,
	}
}

// summary is the line that Hubble's clients print as it is. A reason that they
// have no word for is added to it.
func summary(r *Record, answer bool) string {
	var s string
	if r.Kind == KindL7 {
		s = clip(l7Summary(r, answer), maxSummary)
	} else {
		s = l4Summary(r)
	}
	if r.Reason.Own() {
		s = strings.TrimPrefix(s+"; "+r.Reason.String(), "; ")
	}
	return s
}

func l4Summary(r *Record) string {
	switch r.Proto {
	case policy.ProtoTCP:
		return "TCP Flags: " + flagNames(r.TCPFlags)
	case policy.ProtoUDP:
		return "UDP"
	case policy.ProtoSCTP:
		return "SCTP"
	case policy.ProtoICMP:
		return "ICMPv4 " + icmpName(r.ICMPType, r.ICMPCode)
	case policy.ProtoICMPv6:
		return "ICMPv6 " + icmp6Name(r.ICMPType, r.ICMPCode)
	}
	family := "Ethernet"
	if a := r.Source.Addr().Unmap(); a.Is4() {
		family = "IPv4"
	} else if a.Is6() {
		family = "IPv6"
	}
	if r.Proto != policy.ProtoAny {
		family += " protocol " + strconv.Itoa(int(r.Proto))
	}
	return family
}

// flagNames in Hubble's order.
func flagNames(f uint8) string {
	names := make([]string, 0, 8)
	add := func(bit uint8, name string) {
		if f&bit != 0 {
			names = append(names, name)
		}
	}
	add(flagSYN, "SYN")
	add(flagACK, "ACK")
	add(flagRST, "RST")
	add(flagFIN, "FIN")
	add(flagPSH, "PSH")
	add(flagURG, "URG")
	add(flagECE, "ECE")
	add(flagCWR, "CWR")
	return strings.Join(names, ", ")
}

func icmpName(typ, code uint8) string {
	switch typ {
	case 0:
		return "EchoReply"
	case 3:
		return "DestinationUnreachable" + unreachable(code)
	case 5:
		return "Redirect"
	case 8:
		return "EchoRequest"
	case 11:
		return "TimeExceeded"
	case 12:
		return "ParameterProblem"
	}
	return numbered(typ, code)
}

func unreachable(code uint8) string {
	switch code {
	case 0:
		return "(Net)"
	case 1:
		return "(Host)"
	case 2:
		return "(Protocol)"
	case 3:
		return "(Port)"
	case 4:
		return "(FragmentationNeeded)"
	case 9, 10, 13:
		return "(AdminProhibited)"
	}
	return "(Code: " + strconv.Itoa(int(code)) + ")"
}

func icmp6Name(typ, code uint8) string {
	switch typ {
	case 1:
		return "DestinationUnreachable(Code: " + strconv.Itoa(int(code)) + ")"
	case 2:
		return "PacketTooBig"
	case 3:
		return "TimeExceeded"
	case 4:
		return "ParameterProblem"
	case 128:
		return "EchoRequest"
	case 129:
		return "EchoReply"
	case 133:
		return "RouterSolicitation"
	case 134:
		return "RouterAdvertisement"
	case 135:
		return "NeighborSolicitation"
	case 136:
		return "NeighborAdvertisement"
	case 137:
		return "Redirect"
	}
	return numbered(typ, code)
}

func numbered(typ, code uint8) string {
	return strconv.Itoa(int(typ)) + "(" + strconv.Itoa(int(code)) + ")"
}
