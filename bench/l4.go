package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// sizes are numbers of rules. The one that matches stands in the middle, which only a
// list that is read from its beginning minds.
var sizes = []int{1, 100, 10_000, 50_000}

// ports that n rules allow to the client.
func ports(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint(10_001 + i)
	}
	all[n/2] = "80"
	return all
}

// l4 has the gate with many rules beside what Linux has for the same purpose.
func (w *world) l4() ([]table, error) {
	plain, err := w.newRouted()
	if err != nil {
		return nil, err
	}
	if err := w.serve(plain.server, "80"); err != nil {
		return nil, err
	}
	sides := []side{{name: "routed veth", client: plain.client, to: netip.AddrPortFrom(plain.address, 80)}}
	gates, err := w.gatedSides()
	if err != nil {
		return nil, err
	}
	sides = append(sides, gates...)
	for _, peer := range []struct {
		name   string
		script func([]string) string
	}{{"iptables", iptablesScript}, {"nftables set", nftablesScript}} {
		for _, n := range sizes {
			r, err := w.newRouted()
			if err == nil {
				err = w.serve(r.server, "80")
			}
			if err == nil {
				err = w.shell(r.node, peer.script(ports(n)))
			}
			if err != nil {
				return nil, err
			}
			sides = append(sides, side{name: sideName(peer.name, n), client: r.client, to: netip.AddrPortFrom(r.address, 80)})
		}
	}
	return w.measure(sides, []work{
		{"connections, 32 at once", "connections", nil, loadOptions{Path: smallPath, Connections: 32, Seconds: w.seconds, Reconnect: true}},
		{"round trips, one connection", "round trips", fewSizes, loadOptions{Path: smallPath, Connections: 1, Seconds: w.seconds}},
		{"round trips, 64 connections", "round trips", fewSizes, loadOptions{Path: smallPath, Connections: 64, Seconds: w.seconds}},
		{"throughput, 4 connections", "MB", fewSizes, loadOptions{Path: largePath, Connections: 4, Seconds: w.seconds}},
	})
}

func sideName(name string, rules int) string {
	if rules == 1 {
		return name + ", 1 rule"
	}
	return fmt.Sprintf("%s, %d rules", name, rules)
}

// fewSizes are the sides that work on open connections is given to: rules are read
// when a connection is opened.
func fewSizes(s *side) bool {
	return !strings.Contains(s.name, " rule") || strings.HasSuffix(s.name, " 1 rule") || strings.HasSuffix(s.name, " 50000 rules")
}

// gatedSides are workloads behind the gate with so many rules each.
func (w *world) gatedSides() ([]side, error) {
	g, err := w.newGated()
	if err != nil {
		return nil, err
	}
	client, _, err := g.endpoint("client")
	if err != nil {
		return nil, err
	}
	var sides []side
	for _, n := range sizes {
		app := fmt.Sprintf("rules-%d", n)
		server, addr, err := g.endpoint(app)
		if err == nil {
			err = w.serve(server, "80")
		}
		if err == nil {
			err = g.apply(allowPorts(app, ports(n))...)
		}
		if err != nil {
			return nil, err
		}
		sides = append(sides, side{name: sideName("headgate", n), client: client, to: netip.AddrPortFrom(addr, 80)})
	}
	return sides, nil
}

// allowPorts allows any number of ports: 40 in a rule, which is what one may have, and
// 4000 in a policy.
func allowPorts(app string, ports []string) (policies []string) {
	for many := range slices.Chunk(ports, 4000) {
		var b strings.Builder
		b.WriteString(policyHead(fmt.Sprintf("%s-%d", app, len(policies)), app))
		for some := range slices.Chunk(many, 40) {
			b.WriteString("  - fromEndpoints: [{matchLabels: {app: client}}]\n    toPorts:\n    - ports:\n")
			for _, p := range some {
				fmt.Fprintf(&b, "      - {port: %q, protocol: TCP}\n", p)
			}
		}
		policies = append(policies, b.String())
	}
	return policies
}

// iptablesScript has the rules one after the other, behind the one that lets known
// connections pass. The tables are the kernel's older, faster ones.
func iptablesScript(ports []string) string {
	var b strings.Builder
	b.WriteString("iptables-legacy-restore <<END\n*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n")
	for _, p := range ports {
		fmt.Fprintf(&b, "-A FORWARD -s 10.9.1.2 -p tcp --dport %s -j ACCEPT\n", p)
	}
	b.WriteString("COMMIT\nEND\n")
	return b.String()
}

// nftablesScript has the rules as elements of a set.
func nftablesScript(ports []string) string {
	var b strings.Builder
	b.WriteString("nft -f - <<END\ntable inet filter {\nset allowed {\ntype ipv4_addr . inet_service\nelements = {\n")
	for _, p := range ports {
		fmt.Fprintf(&b, "10.9.1.2 . %s,\n", p)
	}
	b.WriteString("}\n}\nchain forward {\ntype filter hook forward priority 0; policy drop;\nct state established,related accept\nip saddr . tcp dport @allowed accept\n}\n}\nEND\n")
	return b.String()
}
