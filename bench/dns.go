package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

const (
	unboundText = `server:
  interface: ADDRESS
  num-threads: 1
  so-reuseport: no
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "DIR"
  pidfile: "DIR/GROUP.pid"
  use-syslog: no
  verbosity: 0
  access-control: 0.0.0.0/0 allow
  module-config: "iterator"
  local-zone: "example.org." static
  local-zone: "once.example.org." redirect
  local-data: "once.example.org. 60 IN A 192.0.2.80"
  include: "HOSTS"
remote-control:
  control-enable: no
`
	corefile = `.:5301 {
  bind 10.9.1.1
  forward . 10.9.2.2:53
}
`
	dnsdistText = `setLocal("10.9.1.1:5302")
setACL("0.0.0.0/0")
newServer({address="10.9.2.2:53", sockets=4, checkName="host-1.example.org."})
`
	dnsPolicy = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: server}}]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules:
        dns: [{matchPattern: "*.example.org"}, {matchPattern: "*.once.example.org"}]
`
)

// dns has questions go to one unbound: straight, through headgate under a rule, and
// through the forwarders of others, which judge nothing.
func (w *world) dns() ([]table, error) {
	plain, err := w.newRouted()
	if err != nil {
		return nil, err
	}
	if err := w.unbound(plain.server, "unbound", plain.address); err != nil {
		return nil, err
	}
	sides := []side{{name: "unbound alone", client: plain.client, to: netip.AddrPortFrom(plain.address, 53)}}
	g, err := w.newGated()
	if err != nil {
		return nil, err
	}
	client, _, err := g.endpoint("client")
	if err != nil {
		return nil, err
	}
	server, address, err := g.endpoint("server")
	if err != nil {
		return nil, err
	}
	if err := w.unbound(server, "unbound-gated", address); err != nil {
		return nil, err
	}
	if err := g.apply(dnsPolicy); err != nil {
		return nil, err
	}
	if err := g.isolateProxy(); err != nil {
		return nil, err
	}
	sides = append(sides, side{name: "headgate", carrier: "headgate", recorded: g.recorded, client: client, to: netip.AddrPortFrom(address, 53)})
	for _, peer := range []struct {
		name, file, text string
		port             uint16
		args             []string
	}{
		{"coredns", "Corefile", corefile, 5301, []string{"-conf"}},
		{"dnsdist", "dnsdist.conf", dnsdistText, 5302, []string{"--supervised", "--disable-syslog", "-C"}},
	} {
		program, err := exec.LookPath(peer.name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: without %s, which is not installed\n", peer.name)
			continue
		}
		file, err := w.write(peer.file, peer.text)
		if err != nil {
			return nil, err
		}
		if err := w.start(plain.node, peer.name, true, "", program, append(peer.args, file)...); err != nil {
			return nil, err
		}
		sides = append(sides, side{name: peer.name, carrier: peer.name, client: plain.client, to: netip.AddrPortFrom(plain.gateway, peer.port)})
	}
	often, err := w.questions("often", "host-%d.example.org A\n", dnsNames)
	if err != nil {
		return nil, err
	}
	once, err := w.questions("once", "host-%d.once.example.org A\n", 400_000)
	if err != nil {
		return nil, err
	}
	return w.measure(sides, []work{
		{"questions, 100 at once from 10 ports", "questions", nil, loadOptions{Questions: often, Connections: 10, Seconds: w.seconds}},
		{"each name once, 100 at once from 10 ports", "questions", nil, loadOptions{Questions: once, Connections: 10, Seconds: w.seconds}},
	})
}

// dnsNames is how many names are asked for again and again, each with an address of its own.
const dnsNames = 1000

func (w *world) questions(file, line string, n int) (string, error) {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, line, i)
	}
	return w.write(file, b.String())
}

// unbound answers from memory.
func (w *world) unbound(n *netns, group string, address netip.Addr) error {
	var hosts strings.Builder
	for i := range dnsNames {
		fmt.Fprintf(&hosts, "local-data: \"host-%d.example.org. 60 IN A 198.18.%d.%d\"\n", i, i/250, 1+i%250)
	}
	list, err := w.write(group+".hosts", hosts.String())
	if err != nil {
		return err
	}
	file, err := w.write(group+".conf", unboundText, "ADDRESS", address.String(), "DIR", w.dir, "GROUP", group, "HOSTS", list)
	if err != nil {
		return err
	}
	return w.start(n, group, false, "", "unbound", "-d", "-c", file)
}

var dnsperfLines = map[string]*regexp.Regexp{
	"done": regexp.MustCompile(`Queries completed:\s+(\d+)`), "lost": regexp.MustCompile(`Queries lost:\s+(\d+)`),
	"time": regexp.MustCompile(`Run time \(s\):\s+([\d.]+)`), "mean": regexp.MustCompile(`Average Latency \(s\):\s+([\d.]+)`),
}

// dnsperf does the work of questions.
func (w *world) dnsperf(s *side, do work) (x sample, err error) {
	seconds := strconv.FormatFloat(max(do.Seconds, 1), 'f', 0, 64) // it takes whole ones
	out, err := w.run(s.client, "client", "", "dnsperf", "-s", s.to.Addr().String(), "-p", strconv.Itoa(int(s.to.Port())),
		"-d", do.Questions, "-l", seconds, "-c", strconv.Itoa(do.Connections), "-q", "100", "-t", "1")
	if err != nil {
		return x, err
	}
	figures := map[string]float64{}
	for name, line := range dnsperfLines {
		found := line.FindSubmatch(out)
		if found == nil {
			return x, fmt.Errorf("read what dnsperf printed: no %q: %s", line, out)
		}
		if figures[name], err = strconv.ParseFloat(string(found[1]), 64); err != nil {
			return x, fmt.Errorf("read what dnsperf printed: %w", err)
		}
	}
	if strings.Contains(string(out), "REFUSED") || strings.Contains(string(out), "SERVFAIL") {
		return x, fmt.Errorf("not every question was answered well, see %s: %s", filepath.Base(w.dir), out)
	}
	return sample{Requests: uint64(figures["done"]), Errors: uint64(figures["lost"]), Seconds: figures["time"], Mean: 1e6 * figures["mean"]}, nil
}
