package policy

import (
	"strings"
	"testing"
)

func TestUnenforceable(t *testing.T) {
	at := Ref{"default/p", "egress[0].toPorts[0]"}
	l7 := func(r L7Rules) Policy { return Policy{Rules: []Rule{{Ports: []PortRule{{L7: &r, Ref: at}}}}} }
	for name, tt := range map[string]struct {
		policy Policy
		want   string
	}{
		"node":      {Policy{Rules: []Rule{{Node: true, Ports: []PortRule{{L7: &L7Rules{Protocol: ProtocolHTTP}, Ref: at}}}}}, "requests to or from a node"},
		"node port": {Policy{Rules: []Rule{{Node: true, Ports: []PortRule{{Name: "http", Ref: at}}}}}, "name of a port"},
		"node L4":   {Policy{Rules: []Rule{{Node: true, Ports: []PortRule{{First: 22, Last: 22, Ref: at}}}}}, ""},
		"audit L4":  {Policy{Mode: ModeAudit, Rules: []Rule{{Mode: ModeAudit, Ports: []PortRule{{First: 22, Last: 22, Ref: at}}}}}, ""},
		"names":     {Policy{Rules: []Rule{{Peers: []Peer{FQDN{Name: "a"}}, Ref: Ref{"p", "egress[0]"}}}}, ""},
		"node name": {Policy{Rules: []Rule{{Node: true, Peers: []Peer{FQDN{Name: "a"}}, Ref: Ref{"p", "egress[0]"}}}}, "egress[0].toFQDNs: "},
		"services":  {Policy{Rules: []Rule{{Peers: []Peer{ServicePeer{Name: "a"}}, Ref: Ref{"p", "egress[0]"}}}}, ""},
		"nodes":     {Policy{Rules: []Rule{{Peers: []Peer{NodeSelector{}}, Ref: Ref{"p", "egress[0]"}}}}, "selector of nodes"},
		"listener":  {Policy{Rules: []Rule{{Node: true, Ports: []PortRule{{Listener: &Listener{}, Ref: at}}}}}, "toPorts[0].listener: "},
		"TLS HTTP":  {l7(L7Rules{Protocol: ProtocolHTTP, TLS: []TLSRule{{ServerName: "a", Ref: at}}, Ends: &TLSSecrets{Certificate: SecretRef{Name: "s"}}}), ""},
		"TLS Kafka": {l7(L7Rules{Protocol: ProtocolKafka, Ends: &TLSSecrets{}}), ""},
		"TLS DNS":   {l7(L7Rules{Protocol: ProtocolDNS, Ends: &TLSSecrets{}}), "TLS before DNS rules"},
		"TLS Envoy": {Policy{Rules: []Rule{{Ports: []PortRule{{TLS: &TLSSecrets{}, Listener: &Listener{}, Ref: at}}}}}, "before a listener"},
		"no hello":  {l7(L7Rules{Protocol: ProtocolTLS, TLS: []TLSRule{{ServerName: "a", Ref: at}}, Ends: &TLSSecrets{TrustedCA: SecretRef{Name: "s"}}}), "plain text"},
		"grpc":      {l7(L7Rules{GRPC: []GRPCRule{{Ref: at}}}), ""},
		"dns":       {l7(L7Rules{DNS: []DNSRule{{Ref: at}}}), ""},
		"sni":       {l7(L7Rules{Protocol: ProtocolTLS, TLS: []TLSRule{{ServerName: "a", Ref: at}}}), ""},
		"mode":      {Policy{Mode: ModeAudit, DenyResponse: &DenyResponse{Status: 404}}, ""},
		"deny":      {Policy{Rules: []Rule{{Deny: true, Ports: []PortRule{{L7: &L7Rules{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}}, Ref: at}}}}}, ""},
		"edit":      {l7(L7Rules{HTTP: []HTTPRule{{Edits: []HeaderEdit{{}}, Secrets: []SecretHeader{{}}, Ref: at}}}), ""},
		"http":      {l7(L7Rules{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Headers: []HeaderRule{{Name: "a"}}}}}), ""},
		"group ref": {Policy{Rules: []Rule{{Peers: []Peer{CIDRGroupPeer{Name: "a"}, Selector{}, EntityWorld, CIDR{}}}}}, ""},
	} {
		tt.policy.Kind, tt.policy.Name = "CiliumNetworkPolicy", "p"
		errs := Unenforceable(&tt.policy)
		switch {
		case tt.want == "" && len(errs) > 0:
			t.Errorf("%s: %v", name, errs)
		case tt.want == "":
		case len(errs) != 1 || !strings.Contains(errs[0].Error(), tt.want) || !strings.HasPrefix(errs[0].Error(), "CiliumNetworkPolicy p: "):
			t.Errorf("%s: %v, want %q", name, errs, tt.want)
		}
	}
}

// TestSetIDsTellSetsApart: whatever makes a set answer differently makes another
// id, and sets of plain HTTP rules keep the ids they had.
func TestSetIDsTellSetsApart(t *testing.T) {
	secret := SecretRef{Namespace: "n", Name: "s"}
	seen := map[SetID]int{}
	for i, set := range []L7Set{
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Headers: []HeaderRule{{"a", "b"}}}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Edits: []HeaderEdit{{HeaderRule: HeaderRule{"a", "b"}, Action: HeaderLog}}}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Edits: []HeaderEdit{{HeaderRule: HeaderRule{"a", "b"}, Action: HeaderAdd}}}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Edits: []HeaderEdit{{HeaderRule: HeaderRule{"a", "b"}, Action: HeaderAdd, Secret: &secret}}}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Secrets: []SecretHeader{{"a", secret, ""}}}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Secrets: []SecretHeader{{"a", secret, "b"}}}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}, Observed: true},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}, Audit: &L7Set{ID: SetID{1}}},
		{Protocol: ProtocolHTTP, GRPC: []GRPCRule{{}}},
		{Protocol: ProtocolHTTP, GRPC: []GRPCRule{{Service: "a"}}},
		{Protocol: ProtocolHTTP, GRPC: []GRPCRule{{Method: "a"}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}, Deny: &L7Rules{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}, Deny: &L7Rules{Protocol: ProtocolHTTP, GRPC: []GRPCRule{{}}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}, DenyResponse: &DenyResponse{Status: 404}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}, DenyResponse: &DenyResponse{Status: 404, Body: "x"}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{}}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{APIKeys: []int16{0}}}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{HasVersion: true}}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{Role: "produce", APIKeys: []int16{0}}}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{}}, Ends: &TLSSecrets{Certificate: secret}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{}}, Ends: &TLSSecrets{PrivateKey: secret}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{}}, Ends: &TLSSecrets{TrustedCA: secret}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{}}, Ends: &TLSSecrets{ClientCA: secret}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{}}, Ends: &TLSSecrets{OwnCertificate: secret}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{}}, Ends: &TLSSecrets{OwnKey: secret}},
		{Protocol: ProtocolKafka, Kafka: []KafkaRule{{}}, Ends: &TLSSecrets{Conflict: true}},
		{Protocol: ProtocolDNS, DNS: []DNSRule{{}}},
		{Protocol: ProtocolDNS, DNS: []DNSRule{{Name: "a"}}},
		{Protocol: ProtocolDNS, DNS: []DNSRule{{Pattern: "a"}}},
		{Protocol: ProtocolTLS, TLS: []TLSRule{{}}},
		{Protocol: ProtocolTLS, TLS: []TLSRule{{ServerName: "a"}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}, TLS: []TLSRule{{ServerName: "a"}}},
	} {
		set.seal()
		if other, twice := seen[set.ID]; twice {
			t.Errorf("sets %d and %d have one id", other, i)
		}
		seen[set.ID] = i
	}
}

// TestTLSOfSeveralRules: rules for one port end TLS by what any of them says, or, where
// they do not agree, by nothing.
func TestTLSOfSeveralRules(t *testing.T) {
	one, other := &TLSSecrets{TrustedCA: SecretRef{Name: "one"}}, &TLSSecrets{TrustedCA: SecretRef{Name: "other"}}
	same := *one
	client := &TLSSecrets{Certificate: SecretRef{Name: "c"}, PrivateKey: SecretRef{Name: "k"}}
	both := &TLSSecrets{Certificate: client.Certificate, PrivateKey: client.PrivateKey, TrustedCA: one.TrustedCA}
	otherKey := &TLSSecrets{Certificate: client.Certificate, PrivateKey: SecretRef{Name: "other"}}
	conflict := &TLSSecrets{Conflict: true}
	for i, tt := range []struct {
		a, b, want *TLSSecrets
	}{
		{nil, nil, nil}, {one, nil, one}, {nil, one, one}, {one, &same, one}, {one, other, conflict},
		{one, client, both}, {client, one, both}, {both, client, both}, {both, other, conflict}, {client, otherKey, conflict},
		{conflict, one, conflict}, {client, conflict, conflict},
	} {
		rules := (&L7Rules{Protocol: ProtocolKafka, Ends: tt.a}).and(&L7Rules{Protocol: ProtocolKafka, Ends: tt.b})
		if got := rules.Ends; (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%d: %+v", i, got)
		}
		if all := rules.everything(Ref{}); all.Ends != rules.Ends {
			t.Errorf("%d: rules that allow everything forget TLS", i)
		}
	}
}
