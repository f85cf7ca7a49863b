package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/agent"
)

func TestFreePorts(t *testing.T) {
	for _, c := range []struct{ low, high, first, last uint16 }{
		{32768, 60999, 1024, 29999},  // Linux's own
		{1024, 65535, 1024, 29999},   // all of them: the host's sockets are asked for each
		{1025, 30000, 30001, 65535},  // the rest lies above
		{10000, 65535, 1024, 9999},   // below
		{1024, 60999, 61000, 65535},  // above
		{20000, 29999, 30000, 65535}, // the larger part
	} {
		if first, last := freePorts(c.low, c.high); first != c.first || last != c.last {
			t.Errorf("beside %d–%d: %d–%d, want %d–%d", c.low, c.high, first, last, c.first, c.last)
		}
	}
}

func TestNetworkFlags(t *testing.T) {
	good := networkFlags{
		devices: []string{"eth0"}, masquerade: "auto", ports: "20000-20009", noMasquerade: []string{"192.168.0.0/16", "fd00::/8"},
		remoteNodes: []string{"192.0.2.7"}, kubeAPIServers: []string{"2001:db8::1"},
	}
	var cfg agent.Config
	if err := good.settle(&cfg); err != nil {
		t.Fatal(err)
	}
	if !cfg.Masquerade.On || cfg.Masquerade.First != 20000 || cfg.Masquerade.Last != 20009 || len(cfg.NoMasquerade) != 2 ||
		!slices.Equal(cfg.RemoteNodes, []netip.Addr{netip.MustParseAddr("192.0.2.7")}) ||
		!slices.Equal(cfg.KubeAPIServers, []netip.Addr{netip.MustParseAddr("2001:db8::1")}) {
		t.Errorf("settled as %+v", cfg)
	}
	for want, change := range map[string]func(*networkFlags){
		"--masquerade \"yes\"":              func(f *networkFlags) { f.masquerade = "yes" },
		"--masquerade-ports \"20000\"":      func(f *networkFlags) { f.ports = "20000" },
		"--masquerade-ports \"9-8\"":        func(f *networkFlags) { f.ports = "9-8" },
		"--masquerade-ports \"0-8\"":        func(f *networkFlags) { f.ports = "0-8" },
		"--masquerade-ports \"1-70000\"":    func(f *networkFlags) { f.ports = "1-70000" },
		"--no-masquerade-cidr \"10.0.0.0\"": func(f *networkFlags) { f.noMasquerade = []string{"10.0.0.0"} },
		"--remote-node \"10.0.0.0/8\"":      func(f *networkFlags) { f.remoteNodes = []string{"10.0.0.0/8"} },
		"--kube-apiserver \"fe80::1%eth0\"": func(f *networkFlags) { f.kubeAPIServers = []string{"fe80::1%eth0"} },
	} {
		bad := good
		change(&bad)
		if err := bad.settle(&agent.Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
