package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// Slack in the times of flows: they are stamped by another process.
const (
	slackBefore = 200 * time.Millisecond
	slackAfter  = time.Second
)

// sighting is a flow that must have been seen of an attempt.
type sighting struct {
	began, ended time.Time // of the attempt

	ship    string
	named   bool // by a rule of the policy
	version flowpb.IPVersion
	verdict flowpb.Verdict
	l7      bool
	method  string
	path    string
	status  uint32
}

// sightings of one attempt: what the kernel judged, and what the proxy saw. A
// refused request is dropped, and its refusal is forwarded to the client.
func (s scene) sightings(a attempt, began, ended time.Time) []sighting {
	want := sighting{began: began, ended: ended, ship: a.ship, version: flowpb.IPVersion_IPv4, named: s.policy != ""}
	if a.v6 {
		want.version = flowpb.IPVersion_IPv6
	}
	kernel, request := want, want
	request.l7, request.method, request.path = true, a.method, a.path
	switch {
	case a.want == dropped:
		kernel.verdict = flowpb.Verdict_DROPPED
		return []sighting{kernel}
	case !s.l7:
		kernel.verdict = flowpb.Verdict_FORWARDED
		return []sighting{kernel}
	case a.want == denied:
		request.verdict = flowpb.Verdict_DROPPED
	default:
		request.verdict = flowpb.Verdict_FORWARDED
	}
	kernel.verdict = flowpb.Verdict_REDIRECTED
	response := request
	response.verdict, response.status, response.named = flowpb.Verdict_FORWARDED, http.StatusOK, false
	if a.want == denied {
		response.status = http.StatusForbidden
	}
	return []sighting{kernel, request, response}
}

func (s sighting) String() string {
	text := fmt.Sprintf("%s, %s → deathstar, %s", s.verdict, s.ship, s.version)
	if s.l7 {
		text += fmt.Sprintf(", %s %s", s.method, s.path)
	}
	if s.status != 0 {
		text += fmt.Sprintf(", answered %d", s.status)
	}
	return text
}

// parseFlows reads what 'headgate observe -o json' writes.
func parseFlows(output []byte) ([]*flowpb.Flow, error) {
	var flows []*flowpb.Flow
	lines := bufio.NewScanner(bytes.NewReader(output))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var resp observerpb.GetFlowsResponse
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(lines.Bytes(), &resp); err != nil {
			return nil, fmt.Errorf("read the flow %q: %w", lines.Text(), err)
		}
		if f := resp.GetFlow(); f != nil {
			flows = append(flows, f)
		}
	}
	return flows, lines.Err()
}

// find looks for the flow among those that no other sighting has taken, and
// takes it. Its error says what came nearest.
func (s sighting) find(flows []*flowpb.Flow, taken map[*flowpb.Flow]bool) error {
	nearest := errors.New("no such flow at that time")
	for _, f := range flows {
		if taken[f] || !s.about(f) {
			continue
		}
		err := s.check(f)
		if err == nil {
			taken[f] = true
			return nil
		}
		nearest = err
	}
	return nearest
}

// inTime reports whether the flow was seen during the attempt.
func (s sighting) inTime(f *flowpb.Flow) bool {
	at := f.GetTime().AsTime()
	return at.After(s.began.Add(-slackBefore)) && at.Before(s.ended.Add(slackAfter))
}

// about tells the flows that this may be from all others.
func (s sighting) about(f *flowpb.Flow) bool {
	return s.inTime(f) && f.GetVerdict() == s.verdict &&
		f.GetIP().GetIpVersion() == s.version &&
		hasLabel(client(f), "class="+s.ship) &&
		(f.GetL7().GetHttp() != nil) == s.l7 &&
		(!s.l7 || f.GetL7().GetHttp().GetMethod() == s.method && f.GetL7().GetHttp().GetCode() == s.status)
}

// client is the end of a flow that made the connection; a response is told from
// its sender's side.
func client(f *flowpb.Flow) *flowpb.Endpoint {
	if f.GetIsReply().GetValue() {
		return f.GetDestination()
	}
	return f.GetSource()
}

func server(f *flowpb.Flow) *flowpb.Endpoint {
	if f.GetIsReply().GetValue() {
		return f.GetSource()
	}
	return f.GetDestination()
}

// check wants everything that people look for in a flow.
func (s sighting) check(f *flowpb.Flow) error {
	from, to := client(f), server(f)
	switch {
	case from.GetIdentity() == 0 || to.GetIdentity() == 0 || from.GetIdentity() == to.GetIdentity():
		return fmt.Errorf("identities %d → %d", from.GetIdentity(), to.GetIdentity())
	case !hasLabel(from, "org="+allegiance(s.ship)) || !hasLabel(to, "class=deathstar"):
		return fmt.Errorf("labels %v → %v", from.GetLabels(), to.GetLabels())
	case from.GetPodName() != s.ship || to.GetPodName() != "deathstar":
		return fmt.Errorf("names %q → %q", from.GetPodName(), to.GetPodName())
	case s.verdict == flowpb.Verdict_DROPPED && !s.l7 && f.GetDropReasonDesc() == flowpb.DropReason_DROP_REASON_UNKNOWN:
		return errors.New("the drop has no reason")
	case s.named && !strings.Contains(grounds(f), policyName):
		return fmt.Errorf("the verdict does not say that it is by %s: %q", policyName, grounds(f))
	case !s.l7:
		return nil
	}
	return s.checkHTTP(f.GetL7())
}

func (s sighting) checkHTTP(l7 *flowpb.Layer7) error {
	u, err := url.Parse(l7.GetHttp().GetUrl())
	switch {
	case err != nil || u.Path != s.path:
		return fmt.Errorf("URL %q", l7.GetHttp().GetUrl())
	case l7.GetHttp().GetProtocol() == "":
		return errors.New("the request has no protocol")
	case s.status == http.StatusOK && l7.GetLatencyNs() == 0:
		return errors.New("the answer has no latency")
	}
	return nil
}

// policyName is the policy of every scene that has one.
const policyName = "default/rule1"

// grounds is what headgate adds to a flow: the rule that decided or came nearest,
// and what would have had to differ.
func grounds(f *flowpb.Flow) string {
	var added structpb.Struct
	if f.GetExtensions() == nil || f.GetExtensions().UnmarshalTo(&added) != nil {
		return ""
	}
	fields := added.GetFields()
	return strings.TrimSpace(fields["rule"].GetStringValue() + fields["nearest"].GetStringValue() + " " + fields["detail"].GetStringValue())
}

func hasLabel(e *flowpb.Endpoint, label string) bool {
	return slices.ContainsFunc(e.GetLabels(), func(l string) bool {
		return l == label || strings.HasSuffix(l, ":"+label)
	})
}
