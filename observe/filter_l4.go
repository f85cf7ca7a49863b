package observe

import (
	"fmt"
	"slices"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

type ports struct{ source, destination uint16 }

func portsOf(f *flowpb.Flow) (ports, bool) {
	l4 := f.GetL4()
	if t := l4.GetTCP(); t != nil {
		return ports{uint16(t.GetSourcePort()), uint16(t.GetDestinationPort())}, true
	}
	if u := l4.GetUDP(); u != nil {
		return ports{uint16(u.GetSourcePort()), uint16(u.GetDestinationPort())}, true
	}
	if s := l4.GetSCTP(); s != nil {
		return ports{uint16(s.GetSourcePort()), uint16(s.GetDestinationPort())}, true
	}
	return ports{}, false
}

func portFilter(list []string, get func(ports) uint16) (Filter, error) {
	wanted := make([]uint16, 0, len(list))
	for _, s := range list {
		n, ok := parseUint(s, 16)
		if !ok {
			return nil, fmt.Errorf("port %q is not a number from 0 to 65535", s)
		}
		wanted = append(wanted, uint16(n))
	}
	return func(f *flowpb.Flow) bool {
		p, ok := portsOf(f)
		return ok && slices.Contains(wanted, get(p))
	}, nil
}

func protocolFilter(list []string) (Filter, error) {
	var tests []Filter
	for _, s := range list {
		test := protocolTest(strings.ToLower(s))
		if test == nil {
			return nil, fmt.Errorf("protocol %q is not one of tcp, udp, sctp, icmp, icmpv4, icmpv6, http, dns, kafka, tls", s)
		}
		tests = append(tests, test)
	}
	return func(f *flowpb.Flow) bool { return anyOf(tests, f) }, nil
}

func protocolTest(name string) Filter {
	switch name {
	case "tcp":
		return func(f *flowpb.Flow) bool { return f.GetL4().GetTCP() != nil }
	case "udp":
		return func(f *flowpb.Flow) bool { return f.GetL4().GetUDP() != nil }
	case "sctp":
		return func(f *flowpb.Flow) bool { return f.GetL4().GetSCTP() != nil }
	case "icmp":
		return func(f *flowpb.Flow) bool { return f.GetL4().GetICMPv4() != nil || f.GetL4().GetICMPv6() != nil }
	case "icmpv4":
		return func(f *flowpb.Flow) bool { return f.GetL4().GetICMPv4() != nil }
	case "icmpv6":
		return func(f *flowpb.Flow) bool { return f.GetL4().GetICMPv6() != nil }
	case "http":
		return func(f *flowpb.Flow) bool { return f.GetL7().GetHttp() != nil }
	case "dns":
		return func(f *flowpb.Flow) bool { return f.GetL7().GetDns() != nil }
	case "kafka":
		return func(f *flowpb.Flow) bool { return f.GetL7().GetKafka() != nil } //nolint:staticcheck // still carried
	case "tls": // Hubble has no record of it
		return func(f *flowpb.Flow) bool {
			return f.GetL7() != nil && f.GetL7().GetRecord() == nil && strings.HasPrefix(f.GetSummary(), tlsSummary) //nolint:staticcheck // as in setDeprecated
		}
	}
	return nil
}

// tcpFlagsFilter wants all flags of one of the sets; more may be there.
func tcpFlagsFilter(sets []*flowpb.TCPFlags) Filter {
	wanted := make([]uint16, 0, len(sets))
	for _, s := range sets {
		wanted = append(wanted, flagBits(s))
	}
	return func(f *flowpb.Flow) bool {
		flags := f.GetL4().GetTCP().GetFlags()
		if flags == nil {
			return false
		}
		have := flagBits(flags)
		return slices.ContainsFunc(wanted, func(w uint16) bool { return have&w == w })
	}
}

func flagBits(f *flowpb.TCPFlags) uint16 {
	var bits uint16
	for i, set := range [...]bool{
		f.GetFIN(), f.GetSYN(), f.GetRST(), f.GetPSH(), f.GetACK(), f.GetURG(), f.GetECE(), f.GetCWR(), f.GetNS(),
	} {
		if set {
			bits |= 1 << i
		}
	}
	return bits
}

func eventFilter(list []*flowpb.EventTypeFilter) Filter {
	return func(f *flowpb.Flow) bool {
		event := f.GetEventType()
		return event != nil && slices.ContainsFunc(list, func(w *flowpb.EventTypeFilter) bool {
			return (w.GetType() == 0 || w.GetType() == event.GetType()) &&
				(!w.GetMatchSubType() || w.GetSubType() == event.GetSubType())
		})
	}
}

// replyFilter takes a drop that may be either for no reply, as Hubble does.
func replyFilter(list []bool) Filter {
	return func(f *flowpb.Flow) bool {
		if f.GetIsReply() == nil && f.GetVerdict() != flowpb.Verdict_DROPPED {
			return false
		}
		return slices.Contains(list, f.GetIsReply().GetValue())
	}
}

func dropReasonFilter(list []flowpb.DropReason) Filter {
	in := oneOf(list, (*flowpb.Flow).GetDropReasonDesc)
	return func(f *flowpb.Flow) bool { return f.GetVerdict() == flowpb.Verdict_DROPPED && in(f) }
}

func interfaceFilter(list []*flowpb.NetworkInterface) Filter {
	return func(f *flowpb.Flow) bool {
		have := f.GetInterface()
		return have != nil && slices.ContainsFunc(list, func(w *flowpb.NetworkInterface) bool {
			return (w.GetIndex() == 0 || w.GetIndex() == have.GetIndex()) &&
				(w.GetName() == "" || w.GetName() == have.GetName())
		})
	}
}
