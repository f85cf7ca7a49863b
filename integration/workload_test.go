package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// ipVersion is 4 or 6. Whatever holds for one must hold for the other.
type ipVersion int

func (v ipVersion) String() string { return fmt.Sprintf("IPv%d", int(v)) }

func eachVersion(t *testing.T, f func(*testing.T, ipVersion)) {
	for _, v := range []ipVersion{4, 6} {
		t.Run(v.String(), func(t *testing.T) { f(t, v) })
	}
}

// gateway is the node's own address, as workloads see it.
func gateway(v ipVersion) netip.Addr {
	if v == 6 {
		return netip.MustParseAddr("fd00:210::1")
	}
	return netip.MustParseAddr("10.210.0.1")
}

// workload is a namespace that the node connects.
type workload struct {
	*namespace
	node      *node
	name      string // as the agent knows it
	Identity  uint32
	IPs       []netip.Addr
	Interface string
	MAC       string
	Labels    map[string]string
	State     string
}

// workload makes a namespace and adds it as an endpoint. What looks like a label
// is one; other arguments go to the agent as they are.
func (n *node) workload(t *testing.T, name string, args ...string) *workload {
	t.Helper()
	w := n.unconnected(t, name)
	w.add(t, args...)
	return w
}

// unconnected makes the namespace alone.
func (n *node) unconnected(t *testing.T, name string) *workload {
	t.Helper()
	ns, err := openNamespace()
	if err != nil {
		t.Fatal(err)
	}
	w := &workload{namespace: ns, node: n, name: name}
	n.workloads = append(n.workloads, w)
	return w
}

// add connects the workload.
func (w *workload) add(t *testing.T, args ...string) {
	t.Helper()
	command := []string{"endpoint", "add", w.name, "--netns", w.path, "-o", "json"}
	for _, a := range args {
		if !strings.HasPrefix(a, "--") && strings.Contains(a, "=") {
			a = "--label=" + a
		}
		command = append(command, a)
	}
	w.read(t, w.node.headgate(t, command...))
}

func (w *workload) read(t *testing.T, text string) {
	t.Helper()
	w.Labels = nil
	if err := json.Unmarshal([]byte(text), w); err != nil {
		t.Fatalf("read endpoint %s: %v\n%s", w.name, err, text)
	}
}

// label changes labels, as in k=v and k-.
func (w *workload) label(t *testing.T, changes ...string) {
	t.Helper()
	w.read(t, w.node.headgate(t, append([]string{"endpoint", "label", w.name, "-o", "json"}, changes...)...))
}

// addr is the workload's address.
func (w *workload) addr(v ipVersion) netip.Addr {
	for _, ip := range w.IPs {
		if ip.Is6() == (v == 6) {
			return ip
		}
	}
	return netip.Addr{}
}

func (w *workload) at(v ipVersion, port int) netip.AddrPort {
	return netip.AddrPortFrom(w.addr(v), uint16(port))
}

// httpRule is what of HTTP is allowed.
type httpRule struct{ method, path string }

// allow makes a policy for the endpoints of an app: what stands for the peer, such
// as "fromEndpoints: [{matchLabels: {app: web}}]", may reach a TCP port, or is
// reached there; if there are HTTP rules, by these requests alone.
func allow(name, app, peer string, port int, rules ...httpRule) string {
	direction := "ingress"
	if strings.HasPrefix(peer, "to") {
		direction = "egress"
	}
	http := ""
	for _, r := range rules {
		http += fmt.Sprintf("        - {method: %q, path: %q}\n", r.method, r.path)
	}
	if http != "" {
		http = "      rules:\n        http:\n" + http
	}
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {matchLabels: {app: %s}}
  %s:
  - %s
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
%s`, name, app, direction, peer, port, http)
}

// fromApp is the peer of allow that most tests want.
func fromApp(app string) string {
	return fmt.Sprintf("fromEndpoints: [{matchLabels: {app: %s}}]", app)
}

// denyAll is a policy under which nobody may talk to anybody.
const denyAll = `apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: deny-all}
spec:
  endpointSelector: {}
  ingress: [{}]
  egress: [{}]
`
