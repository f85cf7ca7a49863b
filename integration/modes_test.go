package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"golang.org/x/sys/unix"
)

func (n *node) config(t *testing.T, setting string, args ...string) {
	t.Helper()
	n.headgate(t, append([]string{"config", "set", setting}, args...)...)
}

// TestEnforcementSwitch changes when policy is on while the agent runs; the next
// agent remembers.
func TestEnforcementSwitch(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server := n.workload(t, "server", "app=server")
	client := n.workload(t, "client", "app=client")
	server.serveEcho(t, 9000)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		to := server.at(v, 9000)
		client.mustConnect(t, to)
		n.config(t, "enforcement=always")
		client.mustNotConnect(t, to)
		if v == 6 {
			n.stopAgent(t)
			n.startAgent(t)
			client.mustNotConnect(t, to)
		}
		n.apply(t, allow("in", "server", fromApp("client"), 9000), allow("out", "client", "toEndpoints: [{matchLabels: {app: server}}]", 9000))
		client.mustConnect(t, to)
		n.apply(t, denyAll)
		n.withdraw(t, allow("in", "server", fromApp("client"), 9000), allow("out", "client", "toEndpoints: [{matchLabels: {app: server}}]", 9000))
		client.mustNotConnect(t, to)
		n.config(t, "enforcement=never")
		client.mustConnect(t, to)
		n.withdraw(t, denyAll)
		n.config(t, "enforcement=default")
		client.mustConnect(t, to)
	})
}

func (n *namespace) mustConnect(t *testing.T, to netip.AddrPort) {
	t.Helper()
	c, err := n.dial(to, patience)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestAudit has policies report what they would deny: all of them, and one that is
// written so. A rule that denies is named.
func TestAudit(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--audit")
	server := n.workload(t, "server", "app=server")
	client := n.workload(t, "client", "app=client")
	server.serveEcho(t, 9000)
	to := func(v ipVersion) netip.AddrPort { return server.at(v, 9000) }
	audited := func(t *testing.T, c net.Conn, rule string) {
		t.Helper()
		n.awaitFlow(t, "what is audited", []string{"--verdict", "AUDIT"}, from(endOf(c.LocalAddr()), func(f *flowpb.Flow) bool {
			return rule == "" || strings.Contains(f.String(), rule)
		}))
	}
	open := func(t *testing.T, v ipVersion) net.Conn {
		t.Helper()
		c, err := client.dial(to(v), patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	deny := strings.Replace(strings.Replace(allow("deny9000", "server", fromApp("client"), 9000), "ingress:", "ingressDeny:", 1), "metadata: {name: deny9000}", "metadata: {name: deny9000, annotations: {headgate.dev/mode: MODE}}", 1)
	auditing, enforcing := strings.Replace(deny, "MODE", "audit", 1), strings.Replace(deny, "MODE", "enforce", 1)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		// The node audits.
		n.apply(t, denyAll)
		audited(t, open(t, v), "")
		n.withdraw(t, denyAll)
		n.apply(t, enforcing)
		audited(t, open(t, v), "deny9000")
		n.config(t, "audit=off")
		client.mustNotConnect(t, to(v))
		// One policy audits, and takes nothing from those that enforce.
		n.apply(t, auditing)
		c := open(t, v)
		audited(t, c, "deny9000")
		n.apply(t, denyAll)
		client.mustNotConnect(t, to(v))
		n.withdraw(t, denyAll)
		n.withdraw(t, auditing)
		n.config(t, "audit=on")
	})
}

// TestResetOnRevoke ends connections that policy no longer allows, at both ends, at
// the first word of either. Off, they hang.
func TestResetOnRevoke(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--reset-on-revoke")
	server := n.workload(t, "server", "app=server")
	client := n.workload(t, "client", "app=client")
	echo := server.serveEcho(t, 9000)
	allowed, revoked := allow("rule", "server", fromApp("client"), 9000), allow("rule", "server", fromApp("nobody"), 9000)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		n.config(t, "reset-on-revoke=on")
		for _, speaks := range []string{"client", "server"} {
			n.apply(t, allowed)
			s := client.mustOpen(t, server.at(v, 9000))
			s.echoes(t)
			end := echo.end(s.LocalAddr())
			n.apply(t, revoked)
			if speaks == "client" {
				s.isReset(t)
				end.wasReset(t)
			} else {
				end.isReset(t)
				s.isReset(t)
			}
		}
		n.config(t, "reset-on-revoke=off")
		n.apply(t, allowed)
		s := client.mustOpen(t, server.at(v, 9000))
		s.echoes(t)
		n.apply(t, revoked)
		s.staysSilent(t)
	})
}

// wasReset is isReset for who says nothing: a word too late would take the error
// that the reader is to see.
func (e *echoEnd) wasReset(t *testing.T) {
	t.Helper()
	select {
	case <-e.done:
		if !errors.Is(e.err, unix.ECONNRESET) {
			t.Errorf("the server's connection to %s ended with %v, want a reset", e.RemoteAddr(), e.err)
		}
	case <-time.After(patience):
		t.Errorf("the server's connection to %s was not reset", e.RemoteAddr())
	}
}

// TestAnswersNeedNoRule: a server that may open nothing answers, and a client that
// nothing may reach is answered.
func TestAnswersNeedNoRule(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server := n.workload(t, "server", "app=server")
	client := n.workload(t, "client", "app=client")
	server.serveEcho(t, 9000)
	n.apply(t, denyAll, allow("in", "server", fromApp("client"), 9000), allow("out", "client", "toEndpoints: [{matchLabels: {app: server}}]", 9000))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		client.mustOpen(t, server.at(v, 9000)).echoes(t)
		server.mustNotConnect(t, client.at(v, 9000))
	})
}

// hostPolicy lets whom reach a port of the node, and nobody any other.
const hostPolicy = `apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: host}
spec:
  nodeSelector: {matchLabels: {role: edge}}
  ingress:
  - fromEntities: [world]
    toPorts: [{ports: [{port: "8080", protocol: TCP}, {port: "8084", protocol: TCP}]}]
  - fromEndpoints: [{matchLabels: {app: friend}}]
    toPorts: [{ports: [{port: "8081", protocol: TCP}]}]
`

// TestHostFirewall judges what others send to the node itself, at its device and at
// the veths; audit first; endpoints' own traffic goes on; nobody is locked out.
func TestHostFirewall(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--host-firewall", "audit", "--node-label", "role=edge", "--host-firewall-allow", "2222/TCP")
	o := n.uplink(t)
	server := n.workload(t, "server", "app=server")
	friend, stranger := n.workload(t, "friend", "app=friend"), n.workload(t, "stranger", "app=stranger")
	for _, port := range []int{8080, 8081, 2222} {
		n.serveEcho(t, port)
	}
	server.serveEcho(t, 9000)
	o.serveEcho(t, 7000)
	socket := o.listenUDP(t, 7001)
	behind := n.behind(t)
	behind.serveEcho(t, 9999)
	n.apply(t, hostPolicy)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		node := func(port int) netip.AddrPort { return netip.AddrPortFrom(nodeAddr(v), uint16(port)) }
		local := func(port int) netip.AddrPort { return netip.AddrPortFrom(gateway(v), uint16(port)) }
		before := o.mustOpen(t, node(8080))
		before.echoes(t)
		for _, w := range []struct {
			from *namespace
			to   netip.AddrPort
		}{{o.namespace, node(8081)}, {stranger.namespace, local(8081)}} {
			c, err := w.from.dial(w.to, patience)
			if err != nil {
				t.Fatal("audit denies:", err)
			}
			n.awaitFlow(t, "what host policy would deny", []string{"--verdict", "AUDIT"}, from(endOf(c.LocalAddr()), func(f *flowpb.Flow) bool {
				return f.GetDestination().GetIdentity() == 1
			}))
			c.Close()
		}

		n.config(t, "host-firewall=enforce", "--for", "10m")
		before.echoes(t)
		o.mustNotConnect(t, node(8081))
		o.mustOpen(t, node(8080)).echoes(t)
		o.mustOpen(t, node(2222)).echoes(t)
		friend.mustConnect(t, local(8081))
		stranger.mustNotConnect(t, local(8081))
		n.mustConnect(t, netip.AddrPortFrom(loopback(v), 8081))
		// Endpoints' own traffic, and the node's, is not the firewall's business.
		stranger.mustOpen(t, server.at(v, 9000)).echoes(t)
		stranger.mustOpen(t, o.at(v, 7000)).echoes(t)
		n.mustOpen(t, o.at(v, 7000)).echoes(t)
		n.mustOpen(t, server.at(v, 9000)).echoes(t)
		o.mustOpen(t, server.at(v, 9000)).echoes(t)
		n.behindGoesOn(t, behind, o, socket, v)

		// Confirmed it stays; on trial again it falls back to audit.
		n.headgate(t, "config", "confirm")
		n.config(t, "host-firewall=audit")
		for over := true; over; { // before it could be seen, where the machine is busy
			until := time.Now().Add(2 * time.Second)
			n.config(t, "host-firewall=enforce", "--for", "2s")
			c, err := o.dial(node(8081), refusalTime)
			if over = time.Now().After(until); !over && !isTimeout(err) {
				t.Errorf("a connection on trial: %v, %v", c, err)
			}
		}
		eventually(t, patience, "the fall back", func() error {
			if got := n.headgate(t, "config", "get", "host-firewall"); !strings.Contains(got, "host-firewall   audit") {
				return fmt.Errorf("it is %s", got)
			}
			return nil
		})
		o.mustConnect(t, node(8081))
	})
}

func loopback(v ipVersion) netip.Addr {
	if v == 6 {
		return netip.IPv6Loopback()
	}
	return netip.MustParseAddr("127.0.0.1")
}

// TestMonitor reads drops and verdicts as they happen, filtered.
func TestMonitor(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server := n.workload(t, "server", "app=server")
	client := n.workload(t, "client", "app=client")
	server.serveEcho(t, 9000)
	n.apply(t, allow("rule", "server", fromApp("nobody"), 9000))
	cmd := exec.Command(n.binary, "monitor", "--type", "drop", "--endpoint", "client", "--reason", "POLICY_DENIED", "-o", "json", "--socket", n.run()+"/headgate.sock")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-c.done })
	type event struct {
		Type, Verdict, SourceEndpoint, DestinationEndpoint string
		ReasonCode, SourceIdentity                         uint32
	}
	got := make(chan event, 100)
	go func() {
		lines := json.NewDecoder(out)
		for {
			var e event
			if lines.Decode(&e) != nil {
				return
			}
			got <- e
		}
	}()
	want := event{"drop", "DROPPED", "default/client", "default/server", 133, client.Identity}
	deadline := time.After(patience)
	for {
		if c, err := client.dial(server.at(4, 9000), refusalTime); err == nil {
			c.Close()
			t.Fatal("connected against policy")
		}
		select {
		case e := <-got:
			if e != want {
				t.Errorf("%+v, want %+v", e, want)
			}
			return
		case <-deadline:
			t.Fatal("the monitor shows nothing")
		default:
		}
	}
}

// TestMapListings lists every map; numbers are numbers.
func TestMapListings(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server := n.workload(t, "server", "app=server")
	client := n.workload(t, "client", "app=client")
	server.serveEcho(t, 9000)
	client.mustOpen(t, server.at(4, 9000)).echoes(t)
	n.uplink(t)
	send(t, client.mustTalk(t, server.at(4, 9001)), strings.Repeat("in pieces", 1000))
	for name, number := range map[string]string{
		"policy": "subject", "ct": "packets", "ipcache": "identity", "endpoint": "id", "route": "proxyPort", "drops": "packets", "subject": "subject",
		"share": "connections", "config": "", "open": "", "events": "lost", "usage": "percent", "nat": "",
		"device": "ifindex", "node": "", "fragment": "firstEndsAt",
	} {
		var rows []map[string]any
		text := n.headgate(t, "bpf", name, "list", "-o", "json")
		if err := json.Unmarshal([]byte(text), &rows); err != nil || len(rows) == 0 && name != "nat" {
			t.Errorf("bpf %s list: %v, %s", name, err, text)
			continue
		}
		if number == "" {
			continue
		}
		if _, ok := rows[0][number].(float64); !ok {
			t.Errorf("bpf %s list: %s is %T %v, want a number", name, number, rows[0][number], rows[0][number])
		}
	}
	var s struct {
		Maps []struct {
			Map            string
			Entries, Limit uint64
		}
	}
	if err := json.Unmarshal([]byte(n.headgate(t, "status", "-o", "json")), &s); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Maps {
		if m.Map == "ct-tcp" && (m.Entries == 0 || m.Limit < 1<<16) {
			t.Errorf("%+v", m)
		}
	}
	if len(s.Maps) < 8 {
		t.Errorf("status has %d maps", len(s.Maps))
	}
	// Its room is what it was made with.
	n.stopAgent(t)
	again := n.try(t, "", append([]string{"agent", "--max-connections", "70000"}, n.dirs()...)...)
	if again.code != 1 || !strings.Contains(again.stderr, "the running datapath has room for") {
		t.Errorf("an agent with other room: exit code %d: %s", again.code, again.stderr)
	}
	n.startAgent(t)
}
