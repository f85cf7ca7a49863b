package reconcile

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/headgate/headgate/policy"
)

// TestAdmitClusters: no listener that is new leads to this machine itself. One that was
// there before does not stand in the way of other changes.
func TestAdmitClusters(t *testing.T) {
	node := netip.MustParseAddr("192.0.2.1")
	leads := func(to string) *Policy {
		return &Policy{Policy: policy.Policy{Envoy: &policy.EnvoyConfig{Addresses: []netip.Addr{netip.MustParseAddr(to)}}}}
	}
	e := &Engine{cfg: Config{NodeAddresses: func() ([]netip.Addr, error) { return []netip.Addr{node}, nil }}}
	before := map[string]*Policy{"old": leads("192.0.2.1")}
	e.policies = map[string]*Policy{"old": before["old"], "new": leads("192.0.2.2"), "none": {}}
	if err := e.admitClusters(before); err != nil {
		t.Error(err)
	}
	e.policies["new"] = leads("192.0.2.1")
	if err := e.admitClusters(before); !errors.Is(err, ErrRefused) {
		t.Errorf("a cluster that leads to the node: %v", err)
	}
	e.cfg.NodeAddresses = func() ([]netip.Addr, error) { return nil, errors.New("unreadable") }
	if err := e.admitClusters(before); err == nil {
		t.Error("it is taken though nobody knows the node's addresses")
	}
}
