package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

func snapshotToProto(s redirect.Snapshot) *proxyv1.EnforceRequest {
	r := &proxyv1.EnforceRequest{Revision: s.Revision, Zone: zoneToProto(s.Zone)}
	for id, set := range s.Sets {
		p := &proxyv1.L7Set{Number: uint32(set.Number), Id: id[:], Protocol: uint32(set.Number.Protocol())}
		if set.Set != nil {
			p.Protocol = uint32(set.Set.Protocol)
			for _, h := range set.Set.HTTP {
				p.Http = append(p.Http, ruleToProto(h))
			}
		}
		r.Sets = append(r.Sets, p)
	}
	slices.SortFunc(r.Sets, func(a, b *proxyv1.L7Set) int { return cmp.Compare(a.Number, b.Number) })
	return r
}

func ruleToProto(h policy.HTTPRule) *proxyv1.HTTPRule {
	r := &proxyv1.HTTPRule{
		Method: h.Method, Path: h.Path, Host: h.Host,
		Ref: &proxyv1.Ref{Policy: h.Ref.Policy, Path: h.Ref.Path},
	}
	for _, header := range h.Headers {
		r.Headers = append(r.Headers, &proxyv1.Header{Name: header.Name, Value: header.Value})
	}
	return r
}

func snapshotFromProto(r *proxyv1.EnforceRequest) (redirect.Snapshot, error) {
	s := redirect.Snapshot{Revision: r.Revision, Sets: make(map[policy.SetID]redirect.NumberedSet, len(r.Sets))}
	var err error
	if s.Zone, err = zoneFromProto(r.Zone); err != nil {
		return s, err
	}
	for _, p := range r.Sets {
		var id policy.SetID
		if len(p.Id) != len(id) {
			return s, fmt.Errorf("read set %#x: its id has %d bytes instead of %d", p.Number, len(p.Id), len(id))
		}
		copy(id[:], p.Id)
		if _, twice := s.Sets[id]; twice {
			return s, fmt.Errorf("read set %#x: id %x is there twice", p.Number, id)
		}
		if p.Protocol > 0xff {
			return s, fmt.Errorf("read set %#x: there is no protocol %d", p.Number, p.Protocol)
		}
		set := &policy.L7Set{ID: id, Protocol: policy.Protocol(p.Protocol)}
		for _, h := range p.Http {
			rule := policy.HTTPRule{Method: h.Method, Path: h.Path, Host: h.Host, Ref: refFromProto(h.Ref)}
			for _, header := range h.Headers {
				rule.Headers = append(rule.Headers, policy.HeaderRule{Name: header.Name, Value: header.Value})
			}
			set.HTTP = append(set.HTTP, rule)
		}
		s.Sets[id] = redirect.NumberedSet{Number: redirect.SetNumber(p.Number), Set: set}
	}
	return s, nil
}

func refFromProto(r *proxyv1.Ref) policy.Ref {
	return policy.Ref{Policy: r.GetPolicy(), Path: r.GetPath()}
}

// recordFromProto makes what the agent's observer takes.
func recordFromProto(r *proxyv1.Record) observe.Record {
	record := observe.Record{
		Kind: observe.KindL7, Time: time.Unix(0, r.TimeNs), Word: observe.Word(r.Word),
		Direction: policy.Direction(r.Direction), Reason: observe.DropReason(r.Reason),
		Source: endFromProto(r.Source, r.SourcePort), Destination: endFromProto(r.Destination, r.DestinationPort),
		SourceIdentity: policy.Identity(r.SourceIdentity), DestinationIdentity: policy.Identity(r.DestinationIdentity),
		Proto: policy.ProtoTCP, Reply: r.Reply,
		Rule: refFromProto(r.Rule), Nearest: refFromProto(r.Nearest), Detail: r.Detail,
	}
	if r.Method == "" && r.Status == 0 {
		if record.Reason != observe.ReasonNone {
			record.Kind = observe.KindDrop // a connection that was refused
		}
		return record
	}
	record.HTTP = &observe.HTTP{
		Method: r.Method, URL: r.Url, Protocol: r.Protocol,
		Status: int(r.Status), Latency: time.Duration(r.LatencyNs),
	}
	for _, h := range r.Headers {
		record.HTTP.Headers = append(record.HTTP.Headers, [2]string{h.Name, h.Value})
	}
	return record
}

func endFromProto(addr []byte, port uint32) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr) // what is no address stays the zero Addr
	return netip.AddrPortFrom(a, uint16(port))
}
