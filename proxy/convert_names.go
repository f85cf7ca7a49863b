package proxy

import (
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// namesToProto writes what namesFromProto reads.
func namesToProto(n *redirect.Names) *proxyv1.NameRules {
	if n == nil {
		return nil
	}
	p := &proxyv1.NameRules{
		MinTtlNs: int64(n.Limits.MinTTL), GraceNs: int64(n.Limits.Grace), PerName: uint32(n.Limits.PerName), PerEndpoint: uint32(n.Limits.PerEndpoint),
		Prefixes: each(n.Prefixes, netip.Prefix.String),
	}
	for ref, number := range n.Rules {
		p.Rules = append(p.Rules, &proxyv1.NameRef{Policy: ref.Policy, Path: ref.Path, Number: number})
	}
	for id, number := range n.Sets {
		p.Sets = append(p.Sets, &proxyv1.NameSet{Id: id[:], Number: uint32(number)})
	}
	for _, e := range n.Endpoints {
		p.Endpoints = append(p.Endpoints, &proxyv1.NamedEndpoint{Id: uint32(e.ID), Name: e.Name, Addresses: addrsToProto(e.Addrs), Table: e.Table})
	}
	for number, t := range n.Tables {
		table := &proxyv1.NameTable{Number: number, Id: t.ID[:], Enforcement: uint32(t.Enforcement), Audit: t.Audit}
		for i := range t.Rules {
			table.Rules = append(table.Rules, nameRuleToProto(&t.Rules[i]))
		}
		p.Tables = append(p.Tables, table)
	}
	return p
}

func nameRuleToProto(r *policy.Rule) *proxyv1.NameRule {
	p := &proxyv1.NameRule{
		Mode: uint32(r.Mode), Deny: r.Deny, DefaultDeny: r.DefaultDeny, AnyPeer: r.AnyPeer, Policy: r.Ref.Policy, Path: r.Ref.Path,
		Peers: each(r.Peers, namePeerToProto), Requires: each(r.Requires, requirementToProto),
	}
	if d := r.DenyResponse; d != nil {
		p.HasResponse, p.ResponseStatus, p.ResponseBody = true, uint32(d.Status), d.Body
	}
	for _, port := range r.Ports {
		out := &proxyv1.NamePort{Proto: uint32(port.Proto), First: uint32(port.First), Last: uint32(port.Last), Policy: port.Ref.Policy, Path: port.Ref.Path}
		if l7 := port.L7; l7 != nil {
			set := setToProto(&policy.L7Set{Protocol: l7.Protocol, HTTP: l7.HTTP, GRPC: l7.GRPC, Kafka: l7.Kafka, DNS: l7.DNS, TLS: l7.TLS, Ends: l7.Ends})
			var err error
			if out.L7, err = proto.Marshal(set); err != nil {
				out.L7 = []byte{0xff} // which is refused where it is read: without it, everything would be allowed
			}
		}
		if l := port.Listener; l != nil {
			out.Listener = &proxyv1.NameListener{Kind: l.Kind, Namespace: l.Namespace, Config: l.Config, Name: l.Name, Priority: int32(l.Priority)}
		}
		p.Ports = append(p.Ports, out)
	}
	return p
}

func namePeerToProto(peer policy.Peer) *proxyv1.NamePeer {
	switch p := peer.(type) {
	case policy.FQDN:
		if p.Name != "" {
			return &proxyv1.NamePeer{Kind: &proxyv1.NamePeer_Name{Name: p.Name}}
		}
		return &proxyv1.NamePeer{Kind: &proxyv1.NamePeer_Pattern{Pattern: p.Pattern}}
	case policy.CIDR:
		return &proxyv1.NamePeer{Kind: &proxyv1.NamePeer_Cidr{Cidr: &proxyv1.NameCIDR{Prefix: p.Prefix.String(), Except: each(p.Except, netip.Prefix.String)}}}
	case policy.Entity:
		return &proxyv1.NamePeer{Kind: &proxyv1.NamePeer_Entity{Entity: string(p)}}
	case policy.Selector:
		return &proxyv1.NamePeer{Kind: &proxyv1.NamePeer_Selector{Selector: &proxyv1.NameSelector{Requirements: each(p.Requirements, requirementToProto)}}}
	}
	return &proxyv1.NamePeer{} // which is refused where it is read
}

func requirementToProto(r policy.Requirement) *proxyv1.NameRequirement {
	return &proxyv1.NameRequirement{Source: r.Source, Key: r.Key, Op: uint32(r.Op), Values: r.Values}
}

// namesFromProto reads a snapshot's part about names. A table whose rules are not those
// that its id stands for is an error: to judge by other rules than the agent's would
// let through what it denies.
func namesFromProto(p *proxyv1.NameRules) (*redirect.Names, error) {
	if p == nil {
		return nil, nil
	}
	n := &redirect.Names{
		Tables: map[uint32]*policy.NameTable{}, Rules: make(map[policy.Ref]uint32, len(p.Rules)), Sets: make(map[policy.SetID]redirect.SetNumber, len(p.Sets)),
		Limits: redirect.NameLimits{
			MinTTL: time.Duration(p.MinTtlNs), Grace: time.Duration(p.GraceNs), PerName: int(p.PerName), PerEndpoint: int(p.PerEndpoint),
		},
	}
	for _, r := range p.Rules {
		n.Rules[policy.Ref{Policy: r.Policy, Path: r.Path}] = r.Number
	}
	for _, s := range p.Sets {
		var id policy.SetID
		copy(id[:], s.Id)
		n.Sets[id] = redirect.SetNumber(s.Number)
	}
	var err error
	if n.Prefixes, err = prefixesFromProto(p.Prefixes); err != nil {
		return nil, err
	}
	for _, e := range p.Endpoints {
		addrs, err := addrsFromProto(e.Addresses)
		if err != nil {
			return nil, fmt.Errorf("read endpoint %s: %w", e.Name, err)
		}
		n.Endpoints = append(n.Endpoints, redirect.NamedEndpoint{ID: uint16(e.Id), Name: e.Name, Addrs: addrs, Table: e.Table})
	}
	for _, t := range p.Tables {
		table := &policy.NameTable{Enforcement: policy.Enforcement(t.Enforcement), Audit: t.Audit}
		for _, r := range t.Rules {
			rule, err := nameRuleFromProto(r)
			if err != nil {
				return nil, fmt.Errorf("read rule %s %s: %w", r.Policy, r.Path, err)
			}
			table.Rules = append(table.Rules, rule)
		}
		if table.Seal(); string(table.ID[:]) != string(t.Id) {
			return nil, fmt.Errorf("read table %d of rules about names: its rules are not those that its id stands for", t.Number)
		}
		n.Tables[t.Number] = table
	}
	return n, nil
}

func prefixesFromProto(texts []string) (out []netip.Prefix, err error) {
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func nameRuleFromProto(p *proxyv1.NameRule) (policy.Rule, error) {
	r := policy.Rule{
		Direction: policy.Egress, Mode: policy.Mode(p.Mode), Deny: p.Deny, DefaultDeny: p.DefaultDeny, AnyPeer: p.AnyPeer,
		Ref: policy.Ref{Policy: p.Policy, Path: p.Path}, Requires: each(p.Requires, requirementFromProto),
	}
	if p.HasResponse {
		r.DenyResponse = &policy.DenyResponse{Status: int(p.ResponseStatus), Body: p.ResponseBody}
	}
	for _, peer := range p.Peers {
		q, err := namePeerFromProto(peer)
		if err != nil {
			return r, err
		}
		r.Peers = append(r.Peers, q)
	}
	for _, port := range p.Ports {
		out := policy.PortRule{Proto: policy.Proto(port.Proto), First: uint16(port.First), Last: uint16(port.Last), Ref: policy.Ref{Policy: port.Policy, Path: port.Path}}
		if len(port.L7) > 0 {
			var raw proxyv1.L7Set
			if err := proto.Unmarshal(port.L7, &raw); err != nil {
				return r, err
			}
			set, err := setFromProto(&raw)
			if err != nil {
				return r, err
			}
			out.L7 = &policy.L7Rules{Protocol: set.Protocol, HTTP: set.HTTP, GRPC: set.GRPC, Kafka: set.Kafka, DNS: set.DNS, TLS: set.TLS, Ends: set.Ends}
		}
		if l := port.Listener; l != nil {
			out.Listener = &policy.Listener{Kind: l.Kind, Namespace: l.Namespace, Config: l.Config, Name: l.Name, Priority: int(l.Priority)}
		}
		r.Ports = append(r.Ports, out)
	}
	return r, nil
}

func namePeerFromProto(p *proxyv1.NamePeer) (policy.Peer, error) {
	switch k := p.Kind.(type) {
	case *proxyv1.NamePeer_Name:
		return policy.NewFQDN(k.Name, "")
	case *proxyv1.NamePeer_Pattern:
		return policy.NewFQDN("", k.Pattern)
	case *proxyv1.NamePeer_Cidr:
		all, err := prefixesFromProto(append([]string{k.Cidr.Prefix}, k.Cidr.Except...))
		if err != nil {
			return nil, err
		}
		c := policy.CIDR{Prefix: all[0]}
		if len(all) > 1 {
			c.Except = all[1:]
		}
		return c, nil
	case *proxyv1.NamePeer_Entity:
		return policy.Entity(k.Entity), nil
	case *proxyv1.NamePeer_Selector:
		return policy.Selector{Requirements: each(k.Selector.Requirements, requirementFromProto)}, nil
	}
	return nil, fmt.Errorf("%T is no peer", p.Kind)
}

func requirementFromProto(p *proxyv1.NameRequirement) policy.Requirement {
	return policy.Requirement{Source: p.Source, Key: p.Key, Op: policy.Operator(p.Op), Values: p.Values}
}

func missingToProto(m redirect.MissingSet) *proxyv1.MissingSet {
	p := &proxyv1.MissingSet{Table: m.Table, Prefix: m.Prefix.String()}
	for _, f := range m.Picked {
		if f.Name != "" {
			p.Names = append(p.Names, f.Name)
		} else {
			p.Patterns = append(p.Patterns, f.Pattern)
		}
	}
	return p
}

func missingFromProto(p *proxyv1.MissingSet) (redirect.MissingSet, error) {
	m := redirect.MissingSet{Table: p.Table}
	var err error
	if m.Prefix, err = netip.ParsePrefix(p.Prefix); err != nil {
		return m, err
	}
	for _, s := range p.Names {
		f, err := policy.NewFQDN(s, "")
		if err != nil {
			return m, err
		}
		m.Picked = append(m.Picked, f)
	}
	for _, s := range p.Patterns {
		f, err := policy.NewFQDN("", s)
		if err != nil {
			return m, err
		}
		m.Picked = append(m.Picked, f)
	}
	return m, nil
}
