package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/proto"
)

// Flows as 'headgate observe -o json' writes them.
const (
	answered = `{"flow":{"time":"2026-11-02T10:00:00Z","verdict":"FORWARDED","IP":{"source":"10.210.0.1","destination":"10.210.0.2","ipVersion":"IPv4"},` +
		`"source":{"ID":1,"identity":300,"namespace":"default","labels":["k8s:class=deathstar","k8s:org=empire"],"pod_name":"deathstar"},` +
		`"destination":{"ID":2,"identity":301,"namespace":"default","labels":["k8s:class=tiefighter","k8s:org=empire"],"pod_name":"tiefighter"},` +
		`"Type":"L7","is_reply":true,"l7":{"type":"RESPONSE","latency_ns":"1200000","http":{"code":200,"method":"POST","url":"http://10.210.0.1/v1/request-landing","protocol":"HTTP/1.1"}}}}`
	rejected = `{"flow":{"time":"2026-11-02T10:00:01Z","verdict":"DROPPED","drop_reason_desc":"POLICY_DENIED","IP":{"source":"fd00:210::3","destination":"fd00:210::1","ipVersion":"IPv6"},` +
		`"source":{"ID":3,"identity":302,"namespace":"default","labels":["k8s:class=xwing","k8s:org=alliance"],"pod_name":"xwing"},` +
		`"destination":{"ID":1,"identity":300,"namespace":"default","labels":["k8s:class=deathstar","k8s:org=empire"],"pod_name":"deathstar"},` +
		`"Type":"L3_L4","is_reply":false,` +
		`"extensions":{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"detail":"no ingress rule of default/rule1 allows it"}}}}`
)

func someFlows(t *testing.T) []*flowpb.Flow {
	t.Helper()
	flows, err := parseFlows([]byte(answered + "\n" + `{"lost_events":{"num_events_lost":"1"}}` + "\n" + rejected + "\n"))
	if err != nil || len(flows) != 2 {
		t.Fatalf("parse flows: %d of them, error %v; want 2", len(flows), err)
	}
	return flows
}

func someSightings() (response, drop sighting) {
	l7 := scene{l7: true, policy: "l7.yaml"}
	began := time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)
	ended := began.Add(time.Second)
	response = l7.sightings(attempt{ship: "tiefighter", method: http.MethodPost, path: landingPath, want: landed}, began, ended)[2]
	drop = l7.sightings(attempt{ship: "xwing", method: http.MethodPost, path: landingPath, v6: true, want: dropped}, began, ended)[0]
	return response, drop
}

func TestFind(t *testing.T) {
	response, drop := someSightings()
	flows, taken := someFlows(t), map[*flowpb.Flow]bool{}
	for _, s := range []sighting{response, drop} {
		if err := s.find(flows, taken); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if s.find(flows, taken) == nil {
			t.Errorf("%s: one flow was found twice", s)
		}
	}
}

// TestFindWantsEverything takes one thing away from the flows at a time.
func TestFindWantsEverything(t *testing.T) {
	response, drop := someSightings()
	for _, tc := range []struct {
		name  string
		want  sighting
		spoil func(response, drop *flowpb.Flow)
		err   string
	}{
		{"verdict", drop, func(_, d *flowpb.Flow) { d.Verdict = flowpb.Verdict_FORWARDED }, "no such flow"},
		{"version", drop, func(_, d *flowpb.Flow) { d.IP.IpVersion = flowpb.IPVersion_IPv4 }, "no such flow"},
		{"ship", drop, func(_, d *flowpb.Flow) { d.Source.Labels = []string{"k8s:class=awing"} }, "no such flow"},
		{"method", response, func(r, _ *flowpb.Flow) { r.L7.GetHttp().Method = "PUT" }, "no such flow"},
		{"status", response, func(r, _ *flowpb.Flow) { r.L7.GetHttp().Code = 403 }, "no such flow"},
		{"org", drop, func(_, d *flowpb.Flow) { d.Source.Labels = d.Source.Labels[:1] }, "labels"},
		{"identity", drop, func(_, d *flowpb.Flow) { d.Source.Identity = 0 }, "identities"},
		{"same identity", drop, func(_, d *flowpb.Flow) { d.Source.Identity = d.Destination.Identity }, "identities"},
		{"name", drop, func(_, d *flowpb.Flow) { d.Source.PodName = "" }, "names"},
		{"reason", drop, func(_, d *flowpb.Flow) { d.DropReasonDesc = 0 }, "reason"},
		{"time", drop, func(_, d *flowpb.Flow) { d.Time = nil }, "no such flow"},
		{"too late", drop, func(_, d *flowpb.Flow) { d.Time.Seconds += 3 }, "no such flow"},
		{"rule", drop, func(_, d *flowpb.Flow) { d.Extensions = nil }, "does not say"},
		{"path", response, func(r, _ *flowpb.Flow) { r.L7.GetHttp().Url = "http://x" + exhaustPath }, "URL"},
		{"protocol", response, func(r, _ *flowpb.Flow) { r.L7.GetHttp().Protocol = "" }, "protocol"},
		{"latency", response, func(r, _ *flowpb.Flow) { r.L7.LatencyNs = 0 }, "latency"},
		{"backwards", response, func(r, _ *flowpb.Flow) { r.IsReply = nil }, "no such flow"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			flows := someFlows(t)
			for i := range flows {
				flows[i] = proto.CloneOf(flows[i])
			}
			tc.spoil(flows[0], flows[1])
			err := tc.want.find(flows, map[*flowpb.Flow]bool{})
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got error %v, want one with %q", err, tc.err)
			}
		})
	}
}

func TestParseFlowsRefusesOtherText(t *testing.T) {
	if _, err := parseFlows([]byte("no flows here\n")); err == nil {
		t.Error("got no error")
	}
}

// TestPlot holds the story to what it is about.
func TestPlot(t *testing.T) {
	scenes := plot()
	for i, s := range scenes {
		v6 := 0
		for _, a := range s.attempts {
			if a.v6 {
				v6++
			}
			if a.ship == "xwing" && i > 0 && a.want != dropped {
				t.Errorf("scene %d: the xwing is %s", i, a.want)
			}
			if len(s.sightings(a, time.Time{}, time.Time{})) == 0 {
				t.Errorf("scene %d: nothing need be seen of %+v", i, a)
			}
		}
		if v6 != 1 {
			t.Errorf("scene %d: %d requests over IPv6, want 1", i, v6)
		}
	}
}
