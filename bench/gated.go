package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// gated is a node whose workloads headgate connects.
type gated struct {
	*netns
	w *world
}

const metricsAddr = "127.0.0.1:9964"

func (w *world) newGated() (*gated, error) {
	n, err := w.netns()
	if err != nil {
		return nil, err
	}
	g := &gated{n, w}
	w.undo = append(w.undo, func() {
		if _, err := w.run(n, "agent", "", w.headgate, append([]string{"cleanup"}, g.dirs()...)...); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	})
	args := append([]string{"agent", "--node-name", "node", "--metrics-listen", metricsAddr}, g.dirs()...)
	if err := w.start(n, "agent", false, "", w.headgate, args...); err != nil {
		return nil, err
	}
	if _, err := g.headgate("", "status", "--wait", "--wait-duration", "30s"); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *gated) dirs() []string {
	return []string{"--run-dir", filepath.Join(g.w.dir, "run"), "--state-dir", filepath.Join(g.w.dir, "state")}
}

// headgate runs a command of the client. Until all is well none but status answers.
func (g *gated) headgate(input string, args ...string) ([]byte, error) {
	socket := filepath.Join(g.w.dir, "run", "headgate.sock")
	return g.w.run(g.netns, "agent", input, g.w.headgate, append(args, "--socket", socket)...)
}

func (g *gated) apply(policies ...string) error {
	_, err := g.headgate(strings.Join(policies, "\n---\n"), "policy", "apply", "-f", "-", "--timeout", "120s")
	return err
}

// endpoint makes a namespace, connected as a workload of an app.
func (g *gated) endpoint(app string) (*netns, netip.Addr, error) {
	n, err := g.w.netns()
	if err != nil {
		return nil, netip.Addr{}, err
	}
	out, err := g.headgate("", "endpoint", "add", app, "--netns", n.path, "--label", "app="+app, "-o", "json")
	if err != nil {
		return nil, netip.Addr{}, err
	}
	var e struct{ IPs []netip.Addr }
	if err := json.Unmarshal(out, &e); err != nil || len(e.IPs) == 0 {
		return nil, netip.Addr{}, fmt.Errorf("read endpoint %s: %w: %s", app, err, out)
	}
	return n, e.IPs[0], nil
}

// isolateProxy gives the proxy its group, and its core if there is one for it.
func (g *gated) isolateProxy() error {
	out, err := g.headgate("", "status", "-o", "json")
	if err != nil {
		return err
	}
	var status struct{ Backend struct{ PID int } }
	if err := json.Unmarshal(out, &status); err != nil || status.Backend.PID == 0 {
		return fmt.Errorf("find the proxy: %w: %s", err, out)
	}
	return g.w.move(status.Backend.PID, "headgate", g.w.cores(true))
}

// recorded is how many answered requests were seen as flows, and how many events
// were lost on the way.
func (g *gated) recorded() (requests, lost uint64, err error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		Dial: func(network, addr string) (c net.Conn, err error) {
			return c, g.do(func() error { c, err = net.Dial(network, addr); return err })
		},
	}}
	r, err := client.Get("http://" + metricsAddr + "/metrics")
	if err != nil {
		return 0, 0, fmt.Errorf("read metrics: %w", err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		n, _ := strconv.ParseFloat(value, 64)
		switch {
		case strings.HasPrefix(name, "headgate_http_requests_total{"), strings.HasPrefix(name, "headgate_dns_answers_total{"):
			requests += uint64(n)
		case strings.HasPrefix(name, "headgate_lost_events_total{"):
			lost += uint64(n)
		}
	}
	return requests, lost, err
}

// policyHead is the beginning of a policy for an app, up to its rules.
func policyHead(name, app string) string {
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {matchLabels: {app: %s}}
  ingress:
`, name, app)
}

// allow is a policy that lets the client in to a port of an app, with what rules say.
func allow(app, port, rules string) string {
	return policyHead(app, app) + fmt.Sprintf(`  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: %q, protocol: TCP}]
%s`, port, rules)
}
