package integration

import (
	"net/netip"
	"testing"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
)

// serverTable writes the server's ingress table and has every connection judged
// again.
func (w *envoyWorld) serverTable(old, want bpf.PolicyTable) {
	w.t.Helper()
	if err := w.gate.SyncPolicy(serverSubject, old, want); err != nil {
		w.t.Fatal(err)
	}
	revision, err := w.gate.Revision()
	if err == nil {
		err = w.gate.SetRevision(revision + 1)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func redirectTo(set uint32) bpf.PolicyTable {
	key := policy.Key{Peer: clientID, Direction: policy.Ingress, Proto: policy.ProtoTCP, Port: envoyPort, PrefixBits: 16}
	return bpf.PolicyTable{key: {Verdict: policy.Redirect, Set: set}}
}

// A listener of Envoy knows the rules of one route and never asks again. So the gate
// cuts connections that policy denies now, or has given another route.
func (w *envoyWorld) revocationCutsOpenConnections(t *testing.T, f envoyFamily) {
	w.t = t
	w.enforce(1, landing("POST"))
	ours := redirectTo(uint32(envoySet))
	if err := w.gate.SetRoute(bpf.Route{Ingress: uint32(envoySet) + 1}, uint16(w.port)); err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]bpf.PolicyTable{
		"denied": {}, "another route": redirectTo(uint32(envoySet) + 1),
	} {
		c := w.dial(f)
		if answer := c.request("POST", "/v1/request-landing"); answer.status != 200 {
			t.Fatalf("%s: POST was answered %+v before the change, want 200", name, answer)
		}
		w.serverTable(ours, changed)
		if answer, err := c.try("POST", "/v1/request-landing"); err == nil {
			t.Errorf("%s: POST on the open connection was answered %+v, want a reset", name, answer)
		}
		c.Close()
		w.serverTable(changed, ours)
		again := w.dial(f)
		if answer := again.request("POST", "/v1/request-landing"); answer.status != 200 {
			t.Errorf("%s: POST was answered %+v after the change was taken back, want 200", name, answer)
		}
		again.Close()
	}
}

// Envoy and the client draw ports from the same range: a connection of the client
// from a port that Envoy has taken for one of its own is judged as any other.
func (w *envoyWorld) clientTakesThePortOfALeg(t *testing.T, f envoyFamily) {
	w.t = t
	w.enforce(1, landing("POST"))
	first := w.dial(f)
	defer first.Close()
	if answer := first.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Fatalf("POST was answered %+v, want 200", answer)
	}
	leg := w.lastSeen().from
	if leg.Port() == first.local().Port() {
		t.Fatal("the leg has the client's own port: nothing could be tried")
	}
	second := w.dialAs(w.clientNS, netip.AddrPortFrom(f.client, leg.Port()), netip.AddrPortFrom(f.server, envoyPort))
	defer second.Close()
	if answer := second.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Errorf("POST from the leg's port was answered %+v, want 200", answer)
	}
	if answer := second.request("PUT", "/v1/request-landing"); answer.status != 403 {
		t.Errorf("PUT from the leg's port was answered %+v, want 403", answer)
	}
	if answer := first.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Errorf("POST on the first connection was answered %+v afterwards, want 200", answer)
	}
}
