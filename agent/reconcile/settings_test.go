package reconcile

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
)

func (n *node) setting(name string) Setting {
	n.t.Helper()
	for _, s := range n.engine.Config() {
		if s.Name == name {
			return s
		}
	}
	n.t.Fatalf("there is no setting %s", name)
	return Setting{}
}

func TestSettingsAreRemembered(t *testing.T) {
	n := newNode(t)
	n.add("a", "10.0.0.1", map[string]string{"app": "a"})
	n.add("b", "10.0.0.2", map[string]string{"app": "b"})
	if v := n.verdict("10.0.0.1", "10.0.0.2", 80); v != policy.Allow {
		t.Fatal(v)
	}
	for _, bad := range [][2]string{{"colour", "red"}, {SettingAudit, "maybe"}, {SettingEnforcement, ""}} {
		if err := n.engine.SetConfig(t.Context(), bad[0], bad[1], 0); !errors.Is(err, ErrSetting) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	revision := n.gate.revision
	if err := n.engine.SetConfig(t.Context(), SettingEnforcement, "always", 0); err != nil {
		t.Fatal(err)
	}
	if n.gate.revision == revision {
		t.Error("open connections are not judged again")
	}
	if v := n.verdict("10.0.0.1", "10.0.0.2", 80); v != policy.Deny {
		t.Error("always, and without a policy:", v)
	}
	if err := n.engine.SetConfig(t.Context(), SettingReset, "on", 0); err != nil || !n.gate.settings.Reset {
		t.Errorf("%v, %+v", err, n.gate.settings)
	}
	n.restart(n.state, nil)
	if s := n.setting(SettingEnforcement); s.Value != "always" || s.Flag != "default" || !n.gate.settings.Reset {
		t.Errorf("after a restart %+v, %+v", s, n.gate.settings)
	}
	if err := n.engine.SetConfig(t.Context(), SettingAudit, "on", 0); err != nil {
		t.Fatal(err)
	}
	if v := n.verdict("10.0.0.1", "10.0.0.2", 80); v != policy.Allow {
		t.Error("audit denies:", v)
	}
	a := n.gate.tables[n.gate.endpoints[netip.MustParseAddr("10.0.0.1")].Subject]
	if e := a[policy.Key{Direction: policy.Egress}]; !e.Audit || e.Verdict != policy.Allow {
		t.Errorf("nothing is audited: %v", a)
	}
}

const hostDoc = `apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: host}
spec:
  nodeSelector: {matchLabels: {role: edge}}
  ingress: [{fromEntities: [world]}]
`

// A host policy makes a table of the node's own while it is asked for, and none for
// endpoints; a trial of it falls back to audit, over a restart too.
func TestHostSubject(t *testing.T) {
	n := newNode(t)
	n.engine.cfg.NodeLabels = map[string]string{"role": "edge"}
	n.add("a", "10.0.0.1", nil)
	n.apply(hostDoc)
	if n.gate.settings.HostSubject != 0 || len(n.gate.tables) != 1 {
		t.Errorf("off: %+v, %d tables", n.gate.settings, len(n.gate.tables))
	}
	if err := n.engine.SetConfig(t.Context(), SettingHost, "enforce", time.Hour); err != nil {
		t.Fatal(err)
	}
	s := n.gate.settings
	table := n.gate.tables[s.HostSubject]
	if s.Host != bpf.HostEnforce || len(table) == 0 {
		t.Fatalf("%+v, table %v", s, table)
	}
	if lookup(table, policy.IdentityWorldIPv4, policy.Ingress, 22) != policy.Allow || lookup(table, 300, policy.Ingress, 22) != policy.Deny ||
		lookup(table, 300, policy.Egress, 22) != policy.Allow {
		t.Errorf("table %v", table)
	}
	if got := n.engine.Selecting(policy.IdentityHost, policy.Ingress); len(got) != 1 || got[0] != "host" {
		t.Errorf("selecting %v", got)
	}
	if back := n.setting(SettingHost); back.Back != "audit" || back.Until.IsZero() {
		t.Errorf("on trial: %+v", back)
	}
	if err := n.engine.SetConfig(t.Context(), SettingAudit, "on", time.Hour); err == nil {
		t.Error("two settings are on trial at once")
	}
	// Nobody confirms, and the agent dies meanwhile.
	n.state.Trial.Until = time.Now().Add(-time.Second)
	n.restart(n.state, nil)
	if n.gate.settings.Host != bpf.HostAudit || n.setting(SettingHost).Back != "" {
		t.Errorf("after the trial: %+v", n.gate.settings)
	}

	if err := n.engine.SetConfig(t.Context(), SettingHost, "enforce", time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	if err := n.engine.EndTrial(t.Context()); err != nil || n.gate.settings.Host != bpf.HostAudit {
		t.Errorf("%v, %+v", err, n.gate.settings)
	}
	if err := n.engine.SetConfig(t.Context(), SettingHost, "enforce", time.Hour); err != nil {
		t.Fatal(err)
	}
	if ok, err := n.engine.ConfirmConfig(); !ok || err != nil || n.state.Trial != nil {
		t.Errorf("confirm: %v, %v", ok, err)
	}
	if err := n.engine.SetConfig(t.Context(), SettingHost, "off", 0); err != nil {
		t.Fatal(err)
	}
	if n.gate.settings.HostSubject != 0 || len(n.gate.tables) != 1 {
		t.Errorf("off again: %+v, %d tables", n.gate.settings, len(n.gate.tables))
	}
}

const prefixDoc = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: a}}
  egress: [{toEntities: [world]}, {toCIDR: [198.51.100.0/24], toPorts: [{ports: [{port: "80", protocol: TCP}]}]}]
  egressDeny: [{toCIDR: [203.0.113.0/24]}]
`

// A prefix without room closes whose table speaks of it, and nobody else; what is
// denied has the room that is kept.
func TestPrefixWithoutRoom(t *testing.T) {
	n := newNode(t)
	n.add("a", "10.0.0.1", map[string]string{"app": "a"})
	n.add("b", "10.0.0.2", map[string]string{"app": "b"})
	n.add("c", "10.0.0.3", map[string]string{"app": "c"})
	n.gate.spareRoom = len(n.gate.prefixes)
	n.tryApply(prefixDoc)
	if n.gate.prefixes[netip.MustParsePrefix("203.0.113.0/24")] == 0 {
		t.Error("what is denied found no room")
	}
	closed := func(ip string) bool {
		e := n.gate.endpoints[netip.MustParseAddr(ip)]
		return n.gate.closed[e.Subject]
	}
	if !closed("10.0.0.1") || closed("10.0.0.2") {
		t.Errorf("closed: a %v, b %v", closed("10.0.0.1"), closed("10.0.0.2"))
	}
	if v := n.verdict("10.0.0.2", "10.0.0.3", 80); v != policy.Allow {
		t.Error("others are harmed:", v)
	}
	if err := n.engine.Retry(t.Context()); err == nil || !closed("10.0.0.1") {
		t.Error("opened without room:", err)
	}
	n.gate.spareRoom = 0
	if err := n.engine.Retry(t.Context()); err != nil || closed("10.0.0.1") {
		t.Errorf("with room: %v, closed %v", err, closed("10.0.0.1"))
	}
	if n.gate.prefixes[netip.MustParsePrefix("198.51.100.0/24")] == 0 {
		t.Error("the prefix is still not there")
	}
}

// tryApply is apply where some of it may fail.
func (n *node) tryApply(doc string) {
	n.t.Helper()
	ps, err := decode.Decode("test.yaml", []byte(doc))
	if err != nil {
		n.t.Fatal(err)
	}
	if _, _, err := n.engine.ApplyPolicies(n.t.Context(), ps); err != nil {
		n.t.Log(err)
	}
}
