package observe

import (
	"errors"
	"fmt"
	"strconv"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Filter decides whether a flow is wanted.
type Filter func(*flowpb.Flow) bool

// CompileFilters makes one filter of the two lists of a request: a flow is wanted
// if one of the first matches, or there are none, and none of the second does.
func CompileFilters(whitelist, blacklist []*flowpb.FlowFilter) (Filter, error) {
	allow, err := compileAll(whitelist)
	if err != nil {
		return nil, fmt.Errorf("compile whitelist: %w", err)
	}
	deny, err := compileAll(blacklist)
	if err != nil {
		return nil, fmt.Errorf("compile blacklist: %w", err)
	}
	return func(f *flowpb.Flow) bool {
		return (len(allow) == 0 || anyOf(allow, f)) && !anyOf(deny, f)
	}, nil
}

func compileAll(list []*flowpb.FlowFilter) ([]Filter, error) {
	out := make([]Filter, 0, len(list))
	for i, ff := range list {
		f, err := CompileFilter(ff)
		if err != nil {
			return nil, fmt.Errorf("filter %d: %w", i, err)
		}
		out = append(out, f)
	}
	return out, nil
}

func anyOf(filters []Filter, flow *flowpb.Flow) bool {
	for _, f := range filters {
		if f(flow) {
			return true
		}
	}
	return false
}

// CompileFilter makes a filter that wants all fields of a FlowFilter to match; an
// empty one matches everything. It goes by the fields that are set, so a field that
// it does not know, of whatever version, is an error and never matches by omission.
func CompileFilter(ff *flowpb.FlowFilter) (Filter, error) {
	if ff == nil {
		return nil, errors.New("filter is null")
	}
	if len(ff.ProtoReflect().GetUnknown()) > 0 {
		return nil, errors.New("filter has fields that are not known here")
	}
	var all []Filter
	var failed error
	ff.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		f, err := compileField(string(fd.Name()), ff)
		if err != nil {
			failed = fmt.Errorf("%s: %w", fd.Name(), err)
			return false
		}
		all = append(all, f)
		return true
	})
	if failed != nil {
		return nil, failed
	}
	return func(f *flowpb.Flow) bool {
		for _, want := range all {
			if !want(f) {
				return false
			}
		}
		return true
	}, nil
}

// compileField knows the fields that a flow of ours can answer for.
func compileField(name string, ff *flowpb.FlowFilter) (Filter, error) {
	switch name {
	case "source_ip":
		return ipFilter(ff.GetSourceIp(), (*flowpb.IP).GetSource)
	case "destination_ip":
		return ipFilter(ff.GetDestinationIp(), (*flowpb.IP).GetDestination)
	case "source_pod":
		return podFilter(ff.GetSourcePod(), (*flowpb.Flow).GetSource)
	case "destination_pod":
		return podFilter(ff.GetDestinationPod(), (*flowpb.Flow).GetDestination)
	case "source_label":
		return labelFilter(ff.GetSourceLabel(), (*flowpb.Flow).GetSource)
	case "destination_label":
		return labelFilter(ff.GetDestinationLabel(), (*flowpb.Flow).GetDestination)
	case "source_identity":
		return identityFilter(ff.GetSourceIdentity(), (*flowpb.Flow).GetSource), nil
	case "destination_identity":
		return identityFilter(ff.GetDestinationIdentity(), (*flowpb.Flow).GetDestination), nil
	case "source_port":
		return portFilter(ff.GetSourcePort(), func(p ports) uint16 { return p.source })
	case "destination_port":
		return portFilter(ff.GetDestinationPort(), func(p ports) uint16 { return p.destination })
	case "node_name":
		return nodeFilter(ff.GetNodeName())
	case "protocol":
		return protocolFilter(ff.GetProtocol())
	}
	return compileEventField(name, ff)
}

func compileEventField(name string, ff *flowpb.FlowFilter) (Filter, error) {
	switch name {
	case "uuid":
		return oneOf(ff.GetUuid(), (*flowpb.Flow).GetUuid), nil
	case "verdict":
		return oneOf(ff.GetVerdict(), (*flowpb.Flow).GetVerdict), nil
	case "traffic_direction":
		return oneOf(ff.GetTrafficDirection(), (*flowpb.Flow).GetTrafficDirection), nil
	case "ip_version":
		return oneOf(ff.GetIpVersion(), func(f *flowpb.Flow) flowpb.IPVersion { return f.GetIP().GetIpVersion() }), nil
	case "drop_reason_desc":
		return dropReasonFilter(ff.GetDropReasonDesc()), nil
	case "event_type":
		return eventFilter(ff.GetEventType()), nil
	case "reply":
		return replyFilter(ff.GetReply()), nil
	case "tcp_flags":
		return tcpFlagsFilter(ff.GetTcpFlags()), nil
	case "interface":
		return interfaceFilter(ff.GetInterface()), nil
	case "dns_query":
		return regexFilter(ff.GetDnsQuery(), func(f *flowpb.Flow) (string, bool) {
			dns := f.GetL7().GetDns()
			return dns.GetQuery(), dns != nil
		})
	case "http_status_code", "http_method", "http_path", "http_url", "http_header":
		return compileHTTPField(name, ff)
	}
	return nil, errors.New("headgate's flows have nothing this filter could match; leave it out")
}

// oneOf matches flows whose value is among those wanted.
func oneOf[T comparable](wanted []T, value func(*flowpb.Flow) T) Filter {
	set := make(map[T]bool, len(wanted))
	for _, w := range wanted {
		set[w] = true
	}
	return func(f *flowpb.Flow) bool { return set[value(f)] }
}

func parseUint(s string, bits int) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, bits)
	return n, err == nil
}
