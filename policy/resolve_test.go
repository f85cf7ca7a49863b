package policy

import (
	"fmt"
	"testing"
)

func TestEnforcementModes(t *testing.T) {
	ids := NewIdentities()
	rules := []Rule{{Direction: Ingress, DefaultDeny: true, Deny: true, AnyPeer: true}}
	for _, tt := range []struct {
		mode            Enforcement
		rules           []Rule
		ingress, egress Verdict
	}{
		{EnforcementDefault, nil, Allow, Allow},
		{EnforcementDefault, rules, Deny, Allow},
		{EnforcementAlways, nil, Deny, Deny},
		{EnforcementNever, rules, Allow, Allow},
	} {
		table, _ := Resolve(Subject{Enforcement: tt.mode}, tt.rules, ids)
		in := table.Lookup(IdentityWorld, Ingress, ProtoTCP, 80).Verdict
		out := table.Lookup(IdentityWorld, Egress, ProtoTCP, 80).Verdict
		if in != tt.ingress || out != tt.egress {
			t.Errorf("mode %d, %d rules: ingress %s, egress %s", tt.mode, len(tt.rules), in, out)
		}
	}
}

// TestUnknownIdentityNeverMatches, not even what is for everybody.
func TestUnknownIdentityNeverMatches(t *testing.T) {
	table, _ := Resolve(Subject{}, nil, NewIdentities())
	if e := table.Lookup(IdentityUnknown, Ingress, ProtoTCP, 80); e.Verdict != Deny {
		t.Error(e)
	}
}

// TestTableIsSmall: the number of entries that people would expect.
func TestTableIsSmall(t *testing.T) {
	ids := NewIdentities()
	add(t, ids, IdentityInfo{ID: 300, Labels: labelsOf(t, "x", nil)})
	add(t, ids, IdentityInfo{ID: 301, Labels: labelsOf(t, "y", nil)})
	x := Selector{[]Requirement{{SourceK8s, KeyNamespace, OpIn, []string{"x"}}}}
	tcp := func(first, last uint16) []PortRule { return []PortRule{{Proto: ProtoTCP, First: first, Last: last}} }
	for _, tt := range []struct {
		name  string
		rules []Rule
		n     int // for ingress
	}{
		{"none", nil, 1},
		{"default deny", []Rule{{DefaultDeny: true}}, 0},
		{"one peer", []Rule{{DefaultDeny: true, Peers: []Peer{x}}}, 1},
		{"one peer and port", []Rule{{DefaultDeny: true, Peers: []Peer{x}, Ports: tcp(80, 80)}}, 1},
		{"one peer twice", []Rule{{DefaultDeny: true, Peers: []Peer{x, x}, Ports: tcp(80, 80)}, {DefaultDeny: true, Peers: []Peer{x}, Ports: tcp(80, 80)}}, 1},
		{"all, and one peer less a port", []Rule{{DefaultDeny: true, AnyPeer: true}, {Deny: true, Peers: []Peer{x}, Ports: tcp(80, 80)}}, 2},
		{"all ports but one", []Rule{{DefaultDeny: true, AnyPeer: true, Ports: tcp(0, 65535)}, {Deny: true, AnyPeer: true, Ports: tcp(80, 80)}}, 2},
	} {
		table, _ := Resolve(Subject{}, tt.rules, ids)
		n := 0
		for k := range table.Entries {
			if k.Direction == Ingress {
				n++
			}
		}
		if n != tt.n {
			t.Errorf("%s: %d entries, want %d: %v", tt.name, n, tt.n, table.Entries)
		}
	}
}

// ExampleResolve judges two connections to a workload.
func ExampleResolve() {
	ids := NewIdentities()
	client, _ := EndpointLabels("default", "", "", nil, map[string]string{"org": "empire"})
	_ = ids.Add(IdentityInfo{ID: 300, Labels: client})
	rules := []Rule{{
		Direction:   Ingress,
		DefaultDeny: true,
		Peers:       []Peer{Selector{[]Requirement{{SourceAny, "org", OpIn, []string{"empire"}}}}},
		Ports:       []PortRule{{Proto: ProtoTCP, First: 80, Last: 80, Ref: Ref{"default/rule1", "ingress[0].toPorts[0]"}}},
	}}
	table, _ := Resolve(Subject{}, rules, ids)

	e := table.Lookup(300, Ingress, ProtoTCP, 80)
	fmt.Println(e.Verdict, table.Rules[e.Rule-1])
	fmt.Println(table.Lookup(IdentityWorld, Ingress, ProtoTCP, 80).Verdict)
	// Output:
	// allow default/rule1 ingress[0].toPorts[0]
	// deny
}
