package policytest

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/policytest/naive"
)

// Engine is Resolve in the world of package naive.
type Engine struct {
	rules  []policy.Rule
	ids    *policy.Identities
	number map[string]policy.Identity // of parties by name
	tables map[string]policy.Resolved
	judges map[policy.SetID]policy.Judge
}

// NewEngine makes one of policies and parties.
func NewEngine(policies []policy.Policy, parties []naive.Party) *Engine {
	e := &Engine{ids: policy.NewIdentities(), number: map[string]policy.Identity{}, tables: map[string]policy.Resolved{}, judges: map[policy.SetID]policy.Judge{}}
	for _, p := range policies {
		e.rules = append(e.rules, p.Rules...)
	}
	for i := range parties {
		info := identityOf(&parties[i], i)
		e.number[parties[i].Name] = info.ID
		if info.ID >= policy.IdentityMinWorkload {
			if err := e.ids.Add(info); err != nil {
				panic(err)
			}
		}
	}
	return e
}

func identityOf(p *naive.Party, i int) policy.IdentityInfo {
	for id := policy.IdentityHost; id <= policy.IdentityWorldIPv6; id++ {
		if labels, _ := policy.ReservedLabels(id); p.Reserved != "" && labels.Has(policy.SourceReserved, p.Reserved) &&
			(p.Reserved != "remote-node" || id == policy.IdentityRemoteNode) {
			return policy.IdentityInfo{ID: id}
		}
	}
	switch {
	case p.Prefix != "":
		return policy.IdentityInfo{ID: policy.IdentityMinLocal + policy.Identity(i), Prefix: netip.MustParsePrefix(p.Prefix)}
	case p.Address != "" && netip.MustParseAddr(p.Address).Is4():
		return policy.IdentityInfo{ID: policy.IdentityWorldIPv4}
	case p.Address != "":
		return policy.IdentityInfo{ID: policy.IdentityWorldIPv6}
	}
	labels, err := policy.EndpointLabels(p.Namespace, "", "", naive.NamespaceLabels()[p.Namespace], p.Labels)
	if err != nil {
		panic(err)
	}
	return policy.IdentityInfo{ID: policy.IdentityMinWorkload + policy.Identity(i), Labels: labels, NamedPorts: portsOf(p)}
}

func portsOf(p *naive.Party) policy.NamedPorts {
	ports := policy.NamedPorts{}
	for name, port := range p.Ports {
		n := policy.NamedPort{Proto: protocols[port.Protocol]}
		if _, err := fmt.Sscan(port.Port, &n.Port); err != nil {
			panic(err)
		}
		ports[name] = []policy.NamedPort{n}
	}
	return ports
}

var protocols = map[string]policy.Proto{
	"TCP": policy.ProtoTCP, "UDP": policy.ProtoUDP, "SCTP": policy.ProtoSCTP, "ICMP": policy.ProtoICMP, "ICMPv6": policy.ProtoICMPv6, "GRE": 47,
}

// Identities returns what is known of the parties that are not reserved.
func (e *Engine) Identities() *policy.Identities { return e.ids }

// Number is the identity of a party.
func (e *Engine) Number(p *naive.Party) policy.Identity { return e.number[p.Name] }

// Lookup finds the entry for a connection, and the tables that it is in.
func (e *Engine) Lookup(c *naive.Connection) (policy.Entry, policy.Resolved) {
	resolved, ok := e.tables[c.Subject.Name]
	if !ok {
		info, _ := e.ids.Get(e.number[c.Subject.Name])
		resolved.Table, resolved.Sets = policy.Resolve(policy.Subject{Labels: info.Labels, NamedPorts: info.NamedPorts}, e.rules, e.ids)
		e.tables[c.Subject.Name] = resolved
	}
	dir := policy.Ingress
	if c.Egress {
		dir = policy.Egress
	}
	return resolved.Table.Lookup(e.number[c.Peer.Name], dir, protocols[c.Protocol], uint16(c.Port)), resolved
}

// Allowed answers for a connection, and says why.
func (e *Engine) Allowed(t *testing.T, c *naive.Connection) (bool, string) {
	t.Helper()
	entry, resolved := e.Lookup(c)
	why := entry.Verdict.String()
	if entry.Rule > 0 {
		why += " " + resolved.Table.Rules[entry.Rule-1].String()
	}
	if entry.Verdict != policy.Redirect {
		return entry.Verdict == policy.Allow, why
	}
	set := resolved.Sets[entry.Set]
	judge := e.judges[entry.Set]
	if judge == nil {
		var err error
		if judge, err = policy.CompileSet(set); err != nil {
			t.Fatal(err)
		}
		e.judges[entry.Set] = judge
	}
	var request policy.Request = &policy.DNSRequest{Name: c.Request.Name, Type: 1}
	if set.Protocol == policy.ProtocolHTTP {
		http := &policy.HTTPRequest{Method: []byte(c.Request.Method), Path: []byte(c.Request.Path), Host: []byte(c.Request.Host)}
		if c.Request.Token != "" {
			http.Headers = []policy.HTTPHeader{{Name: []byte("x-token"), Value: []byte(c.Request.Token)}}
		}
		request = http
	}
	d := judge.Decide(request)
	return d.Verdict == policy.Allow, fmt.Sprintf("%s, request: %s %s %s", why, d.Verdict, d.Rule, d.Reason)
}
