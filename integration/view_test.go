package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/encoding/protojson"
	_ "google.golang.org/protobuf/types/known/structpb" // of the extensions in flows
)

// statusView is what tests read of 'headgate status -o json'.
type statusView struct {
	OK             bool
	PolicyRevision uint64
	PolicyEnforced uint64
	Policies       int
	Endpoints      map[string]int
	Drops          []struct {
		Reason, Direction string
		Packets           uint64
	}
	Backend struct {
		State string
		PID   int
	}
}

func (n *node) status(t *testing.T) statusView {
	t.Helper()
	o := n.try(t, "", "status", "-o", "json")
	var s statusView
	if err := json.Unmarshal([]byte(o.stdout), &s); err != nil {
		t.Fatalf("headgate status: exit code %d, %v\n%s%s", o.code, err, o.stdout, o.stderr)
	}
	if s.OK != (o.code == 0) {
		t.Errorf("headgate status says ok: %v and exits with %d", s.OK, o.code)
	}
	return s
}

// proxyPID is the process id of the proxy.
func (n *node) proxyPID(t *testing.T) int {
	t.Helper()
	pid := n.status(t).Backend.PID
	if pid == 0 {
		t.Fatal("there is no proxy")
	}
	return pid
}

// dropped counts packets that were dropped for a reason.
func (n *node) dropped(t *testing.T, reason string) uint64 {
	t.Helper()
	total := uint64(0)
	for _, d := range n.status(t).Drops {
		if d.Reason == reason {
			total += d.Packets
		}
	}
	return total
}

// flows asks for flows, by the flags of observe. They must be Hubble's to the
// letter: an unknown field fails the test.
func (n *node) flows(t *testing.T, filter ...string) []*flowpb.Flow {
	t.Helper()
	out := n.headgate(t, append([]string{"observe", "-o", "json", "--last", "1000"}, filter...)...)
	var flows []*flowpb.Flow
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r observerpb.GetFlowsResponse
		if err := protojson.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("a flow that is not Hubble's: %v\n%s", err, lines.Text())
		}
		if f := r.GetFlow(); f != nil {
			flows = append(flows, f)
		}
	}
	return flows
}

// awaitFlow waits for a flow. They arrive a moment after the packets.
func (n *node) awaitFlow(t *testing.T, what string, filter []string, match func(*flowpb.Flow) bool) *flowpb.Flow {
	t.Helper()
	var found *flowpb.Flow
	eventually(t, patience, "a flow for "+what, func() error {
		all := n.flows(t, filter...)
		for _, f := range all {
			if match(f) {
				found = f
				return nil
			}
		}
		words := make([]string, 0, len(all))
		for _, f := range all {
			words = append(words, fmt.Sprintf("%s %s %s:%v %s", f.GetType(), f.GetVerdict(), f.GetTrafficDirection(), f.GetDropReasonDesc(), f.GetSummary()))
		}
		return fmt.Errorf("with %v there are only:\n%s", filter, strings.Join(words, "\n"))
	})
	return found
}

// requestIsReported wants a flow for a denied GET, between ends with these labels.
func (n *node) requestIsReported(t *testing.T, client netip.AddrPort, path, source, destination string) {
	t.Helper()
	filter := []string{"--type", "l7", "--verdict", "DROPPED", "--http-path", path}
	f := n.awaitFlow(t, "GET "+path, filter, from(client, func(f *flowpb.Flow) bool {
		return f.GetL7().GetType() == flowpb.L7FlowType_REQUEST
	}))
	if !slices.Contains(f.GetSource().GetLabels(), source) || !slices.Contains(f.GetDestination().GetLabels(), destination) {
		t.Errorf("flow is between %v and %v, want %s and %s", f.GetSource().GetLabels(), f.GetDestination().GetLabels(), source, destination)
	}
}
