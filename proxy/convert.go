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
	r := &proxyv1.EnforceRequest{Revision: s.Revision, Audit: s.Audit, Zone: zoneToProto(s.Zone), Names: namesToProto(s.Names)}
	for id, set := range s.Sets {
		p := setToProto(set.Set)
		p.Number, p.Id = uint32(set.Number), id[:]
		if set.Set == nil {
			p.Protocol = uint32(set.Number.Protocol())
		}
		r.Sets = append(r.Sets, p)
	}
	slices.SortFunc(r.Sets, func(a, b *proxyv1.L7Set) int { return cmp.Compare(a.Number, b.Number) })
	for ref, value := range s.Secrets {
		r.Secrets = append(r.Secrets, &proxyv1.SecretValue{Secret: secretToProto(&ref), Value: []byte(value)})
	}
	return r
}

func snapshotFromProto(r *proxyv1.EnforceRequest) (redirect.Snapshot, error) {
	s := redirect.Snapshot{
		Revision: r.Revision, Audit: r.Audit, Sets: make(map[policy.SetID]redirect.NumberedSet, len(r.Sets)),
		Secrets: make(map[policy.SecretRef]string, len(r.Secrets)),
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
		set, err := setFromProto(p)
		if err != nil {
			return s, fmt.Errorf("read set %#x: %w", p.Number, err)
		}
		set.ID = id
		s.Sets[id] = redirect.NumberedSet{Number: redirect.SetNumber(p.Number), Set: set}
	}
	for _, v := range r.Secrets {
		if ref := secretFromProto(v.Secret); ref != nil {
			s.Secrets[*ref] = string(v.Value)
		}
	}
	var err error
	if s.Zone, err = zoneFromProto(r.Zone); err != nil {
		return s, err
	}
	if s.Names, err = namesFromProto(r.Names); err != nil {
		return s, err
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
	if r.Kafka != nil {
		record.Kafka = kafkaRecordFromProto(r)
		record.Kafka.Latency = time.Duration(r.LatencyNs)
		return record
	}
	if r.Tls != nil {
		record.TLS = &observe.TLS{ServerName: r.Tls.ServerName}
		return record
	}
	if r.Dns != nil {
		record.DNS = dnsRecordFromProto(r)
		if r.Dns.Udp {
			record.Proto = policy.ProtoUDP
		}
		return record
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
