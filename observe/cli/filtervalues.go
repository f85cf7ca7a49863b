package cli

import (
	"fmt"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/observe"
)

// addType takes TYPE or TYPE:SUBTYPE, by name or number.
func addType(f *flowpb.FlowFilter, v string) error {
	name, sub, hasSub := strings.Cut(v, ":")
	t, ok := eventType(name)
	if !ok {
		return fmt.Errorf("%q is not one of drop, capture, trace, policy-verdict, trace-sock, l7", name)
	}
	e := &flowpb.EventTypeFilter{Type: t, MatchSubType: hasSub}
	if hasSub {
		n, ok := subType(t, sub)
		if !ok {
			return fmt.Errorf("%q is not a subtype of %s", sub, name)
		}
		e.SubType = n
	}
	f.EventType = append(f.EventType, e)
	return nil
}

// eventType by Hubble's names.
func eventType(name string) (int32, bool) {
	switch strings.ToLower(name) {
	case "drop":
		return observe.EventDrop, true
	case "capture":
		return 3, true
	case "trace":
		return observe.EventTrace, true
	case "policy-verdict":
		return observe.EventVerdict, true
	case "trace-sock":
		return 7, true
	case "l7":
		return observe.EventL7, true
	}
	n, err := strconv.ParseUint(name, 10, 8)
	return int32(n), err == nil && n > 0
}

// subType by number; drops also by reason, traces by point ("to-endpoint").
func subType(t int32, name string) (int32, bool) {
	if n, err := strconv.ParseUint(name, 10, 8); err == nil {
		return int32(n), true
	}
	switch t {
	case observe.EventDrop:
		r, ok := observe.ParseDropReason(name)
		return int32(r), ok
	case observe.EventTrace:
		if name == "to-endpoint" { // Cilium's number for it is not the enum's
			return 0, true
		}
		point := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		n, ok := flowpb.TraceObservationPoint_value[point]
		return n, ok
	}
	return 0, false
}

func addDirection(f *flowpb.FlowFilter, v string) error {
	n, ok := flowpb.TrafficDirection_value[strings.ToUpper(v)]
	if !ok || n == 0 {
		return fmt.Errorf("%q is neither ingress nor egress", v)
	}
	f.TrafficDirection = append(f.TrafficDirection, flowpb.TrafficDirection(n))
	return nil
}

func addTCPFlags(f *flowpb.FlowFilter, v string) error {
	flags := new(flowpb.TCPFlags)
	for name := range strings.SplitSeq(v, ",") {
		fd := flags.ProtoReflect().Descriptor().Fields().ByTextName(strings.ToUpper(name))
		if fd == nil {
			return fmt.Errorf("%q is not one of FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, NS", name)
		}
		flags.ProtoReflect().Set(fd, protoreflect.ValueOfBool(true))
	}
	f.TcpFlags = append(f.TcpFlags, flags)
	return nil
}
