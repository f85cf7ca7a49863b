package cli

import (
	"net"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// view is a flow in words that are safe to print.
type view struct {
	time, node              string
	source, destination     string
	left, leftID            string // of the arrow: the client, also for answers
	arrow                   string
	right, rightID          string
	kind, verdict, summary  string
	reason, rule            string // of a denial
	reasonShown, reasonDull bool   // by kind already; said by the verdict itself
}

// clean makes a string safe to print.
func clean(s string) string { return observe.Printable(s) }

func (p *Printer) view(f *flowpb.Flow) view {
	v := view{
		time:        p.time(f.GetTime()),
		node:        clean(f.GetNodeName()),
		source:      p.host(f, true),
		destination: p.host(f, false),
		arrow:       "->",
		kind:        kind(f),
		verdict:     p.verdict(f),
		summary:     clean(f.GetSummary()), //nolint:staticcheck // the field that Hubble prints
	}
	v.left, v.right = v.source, v.destination
	v.leftID, v.rightID = p.identity(f.GetSource()), p.identity(f.GetDestination())
	switch {
	case f.GetIsReply() == nil:
		v.arrow = "<>"
	case f.GetIsReply().GetValue():
		v.arrow = "<-"
		v.left, v.right, v.leftID, v.rightID = v.right, v.left, v.rightID, v.leftID
	}
	if denied(f) {
		v.explain(f)
	}
	return v
}

func denied(f *flowpb.Flow) bool {
	switch f.GetVerdict() {
	case flowpb.Verdict_DROPPED, flowpb.Verdict_ERROR, flowpb.Verdict_AUDIT:
		return true
	}
	return false
}

func (v *view) explain(f *flowpb.Flow) {
	e := observe.Explain(f)
	detail := clean(e.Detail)
	if detail == v.summary { // there was nothing else to say
		detail = ""
	}
	reason := observe.DropReason(f.GetDropReasonDesc())
	if reason != observe.ReasonNone {
		v.reason = reason.String()
	}
	if reason.Own() { // the server puts those into the summary, for clients that do not know them
		v.summary = strings.TrimSuffix(strings.TrimSuffix(v.summary, v.reason), "; ")
	}
	v.reasonShown = f.GetEventType().GetType() == observe.EventDrop
	switch {
	case e.Rule != "":
		v.rule = joined(clean(e.Rule), detail)
	case e.Nearest != "":
		v.rule = joined("nearest "+clean(e.Nearest), detail)
	case detail != "":
		v.reason, v.reasonShown = joined(v.reason, detail), false
	}
	v.reasonDull = v.rule != "" && (reason == observe.ReasonPolicyDenied || reason == observe.ReasonPolicyDeny)
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ": " + b
}

// suffix explains a denial on the line of the flow.
func (v view) suffix() string {
	var s string
	if v.reason != "" && !v.reasonShown && !v.reasonDull {
		s += " reason: " + v.reason
	}
	if v.rule != "" {
		s += " rule: " + v.rule
	}
	return s
}

// host is the name or address of one side, with its port.
func (p *Printer) host(f *flowpb.Flow, source bool) string {
	ep, addr, mac := f.GetDestination(), f.GetIP().GetDestination(), f.GetEthernet().GetDestination()
	names := f.GetDestinationNames()
	if source {
		ep, addr, mac = f.GetSource(), f.GetIP().GetSource(), f.GetEthernet().GetSource()
		names = f.GetSourceNames()
	}
	if f.GetIP() == nil {
		return p.paint(cyan, clean(mac))
	}
	host := addr
	switch pod := ep.GetPodName(); {
	case p.options.Numeric:
	case pod != "" && ep.GetNamespace() != "":
		host = ep.GetNamespace() + "/" + pod
	case pod != "":
		host = pod
	case len(names) > 0:
		host = strings.Join(names, ",")
	}
	if port := portOf(f, source); port != 0 {
		host = net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
	}
	return p.paint(cyan, clean(host))
}

func portOf(f *flowpb.Flow, source bool) uint32 {
	type ported interface {
		GetSourcePort() uint32
		GetDestinationPort() uint32
	}
	var l4 ported
	switch t := f.GetL4().GetProtocol().(type) {
	case *flowpb.Layer4_TCP:
		l4 = t.TCP
	case *flowpb.Layer4_UDP:
		l4 = t.UDP
	case *flowpb.Layer4_SCTP:
		l4 = t.SCTP
	default:
		return 0
	}
	if source {
		return l4.GetSourcePort()
	}
	return l4.GetDestinationPort()
}

func (p *Printer) identity(ep *flowpb.Endpoint) string {
	id := ep.GetIdentity()
	if name, ok := observe.ReservedName(policy.Identity(id)); ok {
		return p.paint(magenta, "("+name+")")
	}
	return p.paint(magenta, "(ID:"+strconv.FormatUint(uint64(id), 10)+")")
}

// kind is the type of event in Hubble's words.
func kind(f *flowpb.Flow) string {
	if l7 := f.GetL7(); l7 != nil {
		protocol := "l7"
		switch l7.GetRecord().(type) {
		case *flowpb.Layer7_Http:
			protocol = "http"
		case *flowpb.Layer7_Dns:
			protocol = "dns"
		case *flowpb.Layer7_Kafka:
			protocol = "kafka"
		}
		return protocol + "-" + strings.ToLower(l7.GetType().String())
	}
	event := f.GetEventType()
	switch event.GetType() {
	case observe.EventDrop:
		return observe.DropReason(event.GetSubType()).String()
	case observe.EventVerdict:
		return "policy-verdict:" + matchType(f.GetPolicyMatchType()) + " " + f.GetTrafficDirection().String()
	case observe.EventTrace:
		return strings.ToLower(strings.ReplaceAll(f.GetTraceObservationPoint().String(), "_", "-"))
	}
	return "UNKNOWN"
}

func matchType(m uint32) string {
	switch m {
	case 0:
		return "none"
	case 1:
		return "L3-Only"
	case 2:
		return "L3-L4"
	case 3:
		return "L4-Only"
	case 4:
		return "all"
	case 5:
		return "L3-Proto"
	case 6:
		return "Proto-Only"
	}
	return "unknown"
}

// verdict in Hubble's words, which for policy verdicts are others.
func (p *Printer) verdict(f *flowpb.Flow) string {
	word := f.GetVerdict().String()
	policyVerdict := f.GetEventType().GetType() == observe.EventVerdict && f.GetL7() == nil
	switch f.GetVerdict() {
	case flowpb.Verdict_FORWARDED, flowpb.Verdict_REDIRECTED:
		if policyVerdict {
			word = "ALLOWED"
		}
		return p.paint(green, word)
	case flowpb.Verdict_DROPPED, flowpb.Verdict_ERROR:
		if policyVerdict {
			word = "DENIED"
		}
		return p.paint(red, word)
	case flowpb.Verdict_AUDIT:
		if policyVerdict {
			word = "AUDITED"
		}
		return p.paint(yellow, word)
	}
	return word
}

type color string

const (
	red     color = "\x1b[31m"
	green   color = "\x1b[32m"
	yellow  color = "\x1b[33m"
	magenta color = "\x1b[35m"
	cyan    color = "\x1b[36m"
)

func (p *Printer) paint(c color, s string) string {
	if !p.options.Color || s == "" {
		return s
	}
	return string(c) + s + "\x1b[0m"
}
