package observe

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/headgate/headgate/policy"
)

// Numbers of Hubble's event types (CiliumEventType.type).
const (
	EventDrop    = 1
	EventTrace   = 4
	EventVerdict = 5
	EventL7      = 129
)

// Builder turns records into flows. It may be used from many goroutines; its
// fields are set before the first use.
type Builder struct {
	Directory Directory // nil: no names
	Node      string
	// Names are those by which somebody asked for an address; nil: they are not known.
	Names func(asker, address netip.Addr) []string

	// PolicyKind is the kind of the policy a rule belongs to
	// ("CiliumNetworkPolicy"), "" or nil if not known: hubble's
	// --print-policy-names shows only policies with a kind.
	PolicyKind func(policy.Ref) string

	explained explanations
}

// Build makes the flow of a record.
func (b *Builder) Build(r *Record) *flowpb.Flow {
	at := r.Time
	if at.IsZero() {
		at = time.Now()
	}
	return b.build(r, at, b.endpoint(r.Source.Addr().Unmap(), r.SourceIdentity), b.endpoint(r.Destination.Addr().Unmap(), r.DestinationIdentity))
}

// build makes the flow. The answer to a request is, as in Hubble, a flow from the
// server to the client, so its ends are the record's, swapped.
func (b *Builder) build(r *Record, at time.Time, source, destination *flowpb.Endpoint) *flowpb.Flow {
	src, dst := r.Source, r.Destination
	answer := r.answer()
	if answer {
		src, dst, source, destination = dst, src, destination, source
	}
	explanation := explanationOf(r)
	f := &flowpb.Flow{
		Time:             timestamppb.New(at),
		Uuid:             newUUID(),
		Verdict:          verdict(r.Word),
		DropReasonDesc:   r.Reason.Desc(),
		Ethernet:         ethernet(r),
		IP:               ip(src.Addr(), dst.Addr()),
		L4:               layer4(r, src.Port(), dst.Port()),
		Source:           source,
		Destination:      destination,
		Type:             flowpb.FlowType_L3_L4,
		NodeName:         b.Node,
		EventType:        eventType(r),
		TrafficDirection: direction(r.Direction),
		PolicyMatchType:  uint32(r.MatchType),
		IsReply:          isReply(r, answer),
		Extensions:       b.explained.encode(explanation),
	}
	if r.Interface != 0 {
		f.Interface = &flowpb.NetworkInterface{Index: r.Interface}
	}
	if b.Names != nil && r.Direction == policy.Egress {
		names := b.Names(r.Source.Addr().Unmap(), r.Destination.Addr().Unmap())
		if answer {
			f.SourceNames = names
		} else {
			f.DestinationNames = names
		}
	}
	if r.Kind == KindL7 {
		f.Type = flowpb.FlowType_L7
		f.L7 = layer7(r, answer)
	}
	b.addPolicy(f, r)
	setDeprecated(f, r, summary(r, answer))
	return f
}

// setDeprecated fills the fields that Hubble deprecates and its tools still read.
func setDeprecated(f *flowpb.Flow, r *Record, summary string) {
	f.DropReason = uint32(r.Reason) //nolint:staticcheck // as above
	f.Reply = f.IsReply.GetValue()  //nolint:staticcheck // as above
	f.Summary = summary             //nolint:staticcheck // as above
}

// addPolicy names the deciding policy where Hubble does.
func (b *Builder) addPolicy(f *flowpb.Flow, r *Record) {
	if r.Rule.Policy == "" {
		return
	}
	p := &flowpb.Policy{Name: r.Rule.Policy}
	if ns, name, ok := strings.Cut(r.Rule.Policy, "/"); ok {
		p.Namespace, p.Name = ns, name
	}
	if b.PolicyKind != nil {
		p.Kind = b.PolicyKind(r.Rule)
	}
	by := []*flowpb.Policy{p}
	allowed := r.Word == Forwarded || r.Word == Redirected
	switch egress := r.Direction == policy.Egress; {
	case allowed && egress:
		f.EgressAllowedBy = by
	case allowed:
		f.IngressAllowedBy = by
	case egress:
		f.EgressDeniedBy = by
	default:
		f.IngressDeniedBy = by
	}
}

func verdict(w Word) flowpb.Verdict {
	switch w {
	case Forwarded:
		return flowpb.Verdict_FORWARDED
	case Dropped:
		return flowpb.Verdict_DROPPED
	case Errored:
		return flowpb.Verdict_ERROR
	case Audited:
		return flowpb.Verdict_AUDIT
	case Redirected:
		return flowpb.Verdict_REDIRECTED
	}
	return flowpb.Verdict_VERDICT_UNKNOWN
}

func direction(d policy.Direction) flowpb.TrafficDirection {
	if d == policy.Egress {
		return flowpb.TrafficDirection_EGRESS
	}
	return flowpb.TrafficDirection_INGRESS
}

func eventType(r *Record) *flowpb.CiliumEventType {
	switch r.Kind {
	case KindDrop:
		return &flowpb.CiliumEventType{Type: EventDrop, SubType: int32(r.Reason)}
	case KindL7:
		return &flowpb.CiliumEventType{Type: EventL7}
	}
	return &flowpb.CiliumEventType{Type: EventVerdict}
}

// isReply is nil where it is not known: a dropped packet says which way it goes
// only when it opens a connection.
func isReply(r *Record, answer bool) *wrapperspb.BoolValue {
	opens := r.Proto == policy.ProtoTCP && r.TCPFlags&(flagSYN|flagACK) == flagSYN
	switch {
	case r.Kind == KindL7:
		return wrapperspb.Bool(answer)
	case r.Kind == KindVerdict, r.Reply, opens:
		return wrapperspb.Bool(r.Reply)
	}
	return nil
}

func ip(src, dst netip.Addr) *flowpb.IP {
	if !src.IsValid() && !dst.IsValid() {
		return nil
	}
	src, dst = src.Unmap(), dst.Unmap()
	version := flowpb.IPVersion_IPv4
	if src.Is6() || dst.Is6() {
		version = flowpb.IPVersion_IPv6
	}
	return &flowpb.IP{Source: addrString(src), Destination: addrString(dst), IpVersion: version}
}

func addrString(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func newUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[0:8], u[0:4])
	hex.Encode(s[9:13], u[4:6])
	hex.Encode(s[14:18], u[6:8])
	hex.Encode(s[19:23], u[8:10])
	hex.Encode(s[24:36], u[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}
