package main

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/headgate/headgate/agent"
	"github.com/headgate/headgate/agent/reconcile"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
)

// enforcementFlags say what policy does, and for whom there is how much room.
type enforcementFlags struct {
	enforcement  string
	audit, reset bool
	host         string
	hostAllow    []string
	nodeLabels   []string
	connections  int
	share        int
}

func (f *enforcementFlags) addTo(fs *pflag.FlagSet) {
	fs.StringVar(&f.enforcement, "enforcement", "default", "when policy is on: default (for who is selected), always, never")
	fs.BoolVar(&f.audit, "audit", false, "deny nothing; report what would be denied with verdict AUDIT")
	fs.BoolVar(&f.reset, "reset-on-revoke", false, "reset a TCP connection that policy no longer allows, at both ends, instead of dropping its packets")
	fs.StringVar(&f.host, "host-firewall", "off", "policies with nodeSelector: off, audit (report what they would deny) or enforce")
	fs.StringArrayVar(&f.hostAllow, "host-firewall-allow", []string{"22/TCP"}, "port of this node that no policy closes, beside those of DHCP; repeatable")
	fs.StringArrayVar(&f.nodeLabels, "node-label", nil, "K=V, a label of this node for nodeSelector; repeatable")
	fs.IntVar(&f.connections, "max-connections", 0, "room for established connections; for a new datapath only (default: 1048576, less on a small machine)")
	fs.IntVar(&f.share, "max-connections-per-workload", 0, "how many of these one workload may have (default: a quarter)")
}

func (f *enforcementFlags) settle(cfg *agent.Config) error {
	modes := []string{"default", "always", "never"}
	mode := slices.Index(modes, f.enforcement)
	if mode < 0 {
		return usagef("--enforcement %q: write default, always or never", f.enforcement)
	}
	host := slices.Index([]string{"off", "audit", "enforce"}, f.host)
	if host < 0 {
		return usagef("--host-firewall %q: write off, audit or enforce", f.host)
	}
	if f.connections < 0 || f.share < 0 {
		return usagef("--max-connections and --max-connections-per-workload cannot be negative")
	}
	cfg.Settings = reconcile.Settings{
		Enforcement: policy.Enforcement(mode), Audit: f.audit, Reset: f.reset, HostFirewall: bpf.HostFirewall(host),
	}
	cfg.MaxConnections, cfg.Share = f.connections, f.share
	cfg.NodeLabels = map[string]string{}
	for _, s := range f.nodeLabels {
		k, v, found := strings.Cut(s, "=")
		if !found {
			return usagef("--node-label %q: write KEY=VALUE", s)
		}
		cfg.NodeLabels[k] = v
	}
	if _, err := policy.NodeLabels(true, cfg.NodeLabels); err != nil {
		return usagef("--node-label: %v", err)
	}
	return f.openPorts(cfg)
}

// openPorts are those that no host policy closes: what people named, DHCP, without
// which the node loses its address, and what the agent serves to others itself.
func (f *enforcementFlags) openPorts(cfg *agent.Config) error {
	for _, s := range f.hostAllow {
		p, err := parseOpenPort(s)
		if err != nil {
			return err
		}
		cfg.HostAllow = append(cfg.HostAllow, p)
	}
	for _, port := range []uint16{68, 546} {
		cfg.HostAllow = append(cfg.HostAllow, bpf.OpenPort{Direction: policy.Ingress, Proto: policy.ProtoUDP, Port: port})
	}
	for _, port := range []uint16{67, 547} {
		cfg.HostAllow = append(cfg.HostAllow, bpf.OpenPort{Direction: policy.Egress, Proto: policy.ProtoUDP, Port: port})
	}
	for _, addr := range append([]string{cfg.MetricsListen}, cfg.ObserverListen...) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "localhost" {
			continue // a unix socket, or nothing
		}
		if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
			continue
		}
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			cfg.HostAllow = append(cfg.HostAllow, bpf.OpenPort{Direction: policy.Ingress, Proto: policy.ProtoTCP, Port: uint16(n)})
		}
	}
	return nil
}

func parseOpenPort(s string) (bpf.OpenPort, error) {
	text, proto, found := strings.Cut(s, "/")
	p := bpf.OpenPort{Direction: policy.Ingress, Proto: policy.ProtoTCP}
	if found && strings.EqualFold(proto, "UDP") {
		p.Proto = policy.ProtoUDP
	} else if found && !strings.EqualFold(proto, "TCP") {
		return p, usagef("--host-firewall-allow %q: write PORT/TCP or PORT/UDP", s)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return p, usagef("--host-firewall-allow %q: write a port, such as 22/TCP", s)
	}
	p.Port = uint16(n)
	return p, nil
}
