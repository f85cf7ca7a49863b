package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

func settings() *agentv1.ConfigResponse {
	return &agentv1.ConfigResponse{Settings: []*agentv1.Setting{
		{Name: "audit", Value: "off", Flag: "off", Values: []string{"off", "on"}},
		{Name: "host-firewall", Value: "enforce", Flag: "off", Values: []string{"off", "audit", "enforce"}, Fallback: "audit", UntilNs: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano()},
	}}
}

func (f *fakeAgent) GetConfig(_ context.Context, req *agentv1.GetConfigRequest) (*agentv1.ConfigResponse, error) {
	return settings(), f.asked(req)
}

func (f *fakeAgent) SetConfig(_ context.Context, req *agentv1.SetConfigRequest) (*agentv1.ConfigResponse, error) {
	return settings(), f.asked(req)
}

func (f *fakeAgent) ConfirmConfig(_ context.Context, req *agentv1.ConfirmConfigRequest) (*agentv1.ConfirmConfigResponse, error) {
	return &agentv1.ConfirmConfigResponse{Confirmed: !f.unforced}, f.asked(req)
}

func (f *fakeAgent) Monitor(req *agentv1.MonitorRequest, to grpc.ServerStreamingServer[agentv1.MonitorEvent]) error {
	if err := f.asked(req); err != nil {
		return err
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC).UnixNano()
	for _, e := range []*agentv1.MonitorEvent{
		{
			TimeNs: at, Type: "drop", Verdict: "DROPPED", Reason: "Policy denied", ReasonCode: 133, Direction: "ingress", Protocol: "TCP", Flags: "SYN",
			Source: "10.210.0.12:40000", Destination: "10.210.0.7:80", SourceIdentity: 301, DestinationIdentity: 300,
			SourceEndpoint: "rebels/xwing", DestinationEndpoint: "default/deathstar", Ifindex: 12, Length: 74,
		},
		{TimeNs: at, Type: "verdict", Verdict: "REDIRECTED", Direction: "egress", Protocol: "TCP", Flags: "SYN", Source: "10.210.0.12:40001", Destination: "192.0.2.1:80", Rule: "default/rule1\x1b[31m", Set: "http/1"},
		{TimeNs: at, Type: "lost", Lost: 7},
	} {
		if err := to.Send(e); err != nil {
			return err
		}
	}
	return nil
}

func TestConfig(t *testing.T) {
	f := &fakeAgent{}
	socket := f.serve(t)
	if got := command(t, socket, "config", "set", "host-firewall=enforce", "--for", "2m"); got.code != 0 || !strings.Contains(got.out, "enforce") {
		t.Fatalf("%+v", got)
	}
	req := f.last(t).(*agentv1.SetConfigRequest)
	if req.GetName() != "host-firewall" || req.GetValue() != "enforce" || req.GetForNs() != int64(2*time.Minute) {
		t.Errorf("asked for %v", req)
	}
	if got := command(t, socket, "config", "confirm"); got.code != 0 || got.out != "confirmed\n" {
		t.Errorf("%+v", got)
	}
	f.unforced = true
	if got := command(t, socket, "config", "confirm"); got.code != exitFailed || !strings.Contains(got.err, "nothing is on trial") {
		t.Errorf("%+v", got)
	}
	for _, args := range [][]string{{"set", "audit"}, {"set", "audit=on", "--for", "-1s"}, {"get", "colour"}, {"set"}} {
		if got := command(t, socket, append([]string{"config"}, args...)...); got.code != exitUsage {
			t.Errorf("config %v: %+v, want wrong usage", args, got)
		}
	}
}

func TestMonitor(t *testing.T) {
	f := &fakeAgent{}
	socket := f.serve(t)
	t.Setenv("TZ", "UTC")
	got := command(t, socket, "monitor", "--type", "drop", "--endpoint", "deathstar", "--reason", "POLICY_DENIED", "--reason", "181", "-o", "json")
	if got.code != 0 {
		t.Fatalf("%+v", got)
	}
	golden(t, "monitor.json", got.out)
	req := f.last(t).(*agentv1.MonitorRequest)
	if len(req.GetReasons()) != 2 || req.GetReasons()[0] != 133 || req.GetReasons()[1] != 181 || req.GetEndpoints()[0] != "default/deathstar" || req.GetTypes()[0] != "drop" {
		t.Errorf("asked for %v", req)
	}
	lines := strings.Split(strings.TrimSpace(command(t, socket, "monitor").out), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "DROPPED ingress TCP SYN 10.210.0.12:40000 (rebels/xwing 301) -> 10.210.0.7:80 (default/deathstar 300) ifindex 12, 74 bytes reason 133 Policy denied") ||
		strings.Contains(lines[1], "\x1b") || !strings.HasSuffix(lines[2], "LOST 7 events, this reader was too slow") {
		t.Errorf("%q", lines)
	}
	for _, args := range [][]string{{"--type", "trace-sock"}, {"--reason", "NO_SUCH"}, {"--endpoint", "a/b/c"}, {"-o", "yaml"}} {
		if got := command(t, socket, append([]string{"monitor"}, args...)...); got.code != exitUsage {
			t.Errorf("monitor %v: %+v, want wrong usage", args, got)
		}
	}
}

// What the flags say of ports that are never closed: those named, DHCP's, and what
// the agent serves to others.
func TestOpenPorts(t *testing.T) {
	for arg, want := range map[string]string{"22": "22", "53/udp": "53", "0/TCP": "", "22/SCTP": "", "ssh": ""} {
		p, err := parseOpenPort(arg)
		if (err == nil) != (want != "") {
			t.Errorf("%s: %+v, %v", arg, p, err)
		}
	}
}
