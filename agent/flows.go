package agent

import (
	"fmt"
	"strings"

	"github.com/headgate/headgate/agent/reconcile"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// recordOf describes an event of the gate in the words of flows.
func recordOf(ev *bpf.Event, engine *reconcile.Engine) observe.Record {
	r := observe.Record{
		Kind: observe.KindVerdict, Time: ev.Time, Word: observe.Forwarded, Direction: ev.Direction,
		Source: ev.Source, Destination: ev.Destination,
		SourceIdentity: ev.SourceIdentity, DestinationIdentity: ev.DestinationIdentity,
		SourceMAC: ev.SourceMAC, DestinationMAC: ev.DestinationMAC,
		Proto: ev.Proto, TCPFlags: ev.TCPFlags, ICMPType: ev.ICMPType, ICMPCode: ev.ICMPCode,
		MatchType: ev.Match, Interface: ev.Ifindex, Rule: engine.Reference(ev.Rule),
	}
	if ev.Kind == bpf.EventVerdict {
		if ev.Verdict == policy.Redirect {
			r.Word = observe.Redirected
		}
		if ev.Audit {
			r.Word = observe.Audited
			if ev.Rule == 0 {
				r.Detail = "no rule allows it; it is let through because policies audit"
			}
		}
		return r
	}
	r.Kind, r.Word, r.Reason = observe.KindDrop, observe.Dropped, observe.DropReason(ev.Reason)
	r.Detail = dropDetail(ev, r.Reason, engine)
	return r
}

// dropDetail says what a reason alone does not.
func dropDetail(ev *bpf.Event, reason observe.DropReason, engine *reconcile.Engine) string {
	switch reason {
	case observe.ReasonPolicyDenied:
		subject := ev.SourceIdentity
		if ev.Direction == policy.Ingress {
			subject = ev.DestinationIdentity
		}
		names := engine.Selecting(subject, ev.Direction)
		if len(names) == 0 {
			return fmt.Sprintf("no policy allows it: enforcement is on and no %s rule selects the workload", ev.Direction)
		}
		return fmt.Sprintf("no %s rule of %s allows it", ev.Direction, strings.Join(names, ", "))
	case observe.ReasonOutside:
		return "the host forwards it between networks that the agent does not serve, or it is multicast"
	case observe.ReasonNoDevice:
		return "name the device with --device"
	}
	return ""
}
