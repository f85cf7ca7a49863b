package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestCleanupAfterKill kills an agent that has done a bit of everything, and cleans up:
// but for its own devices the namespace is as one that never had an agent.
func TestCleanupAfterKill(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--dns", "on")
	w := n.workload(t, "server", "app=server")
	w.serveWeb(t, 80)
	n.addService(t, "web", 80, "TCP", "--selector", "app=server", "--node-port", "30080")
	n.apply(t, allow("rule", "server", "fromEntities: [host]", 80, httpRule{"GET", "/"}))
	eachVersion(t, func(t *testing.T, v ipVersion) { n.mustAsk(t, virtual(v, 80), "GET", "/", 200) })
	n.killAgent()
	if o := n.try(t, "", append([]string{"cleanup"}, n.dirs()...)...); o.code != 0 {
		t.Fatalf("cleanup: exit code %d: %s", o.code, o.stderr)
	}
	n.checkNothingLeft(t)
	got, want := n.setUp(t), newNamespace(t).setUp(t)
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			t.Errorf("%s is %q after cleanup, and %q where no agent was", key, got[key], want[key])
		}
		delete(got, key)
	}
	for key, value := range got {
		t.Errorf("%s is left after cleanup: %s", key, value)
	}
}

// setUp is what a namespace has of routes, rules, neighbours and settings that are
// nobody's device's.
func (n *namespace) setUp(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := n.do(func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			rules, err := netlink.RuleList(family)
			if err != nil {
				return err
			}
			neighbours, err := netlink.NeighList(0, family)
			if err != nil {
				return err
			}
			for _, r := range routes {
				out[fmt.Sprintf("route %v", r)] = "there"
			}
			for _, r := range rules {
				out[fmt.Sprintf("rule %v", r)] = "there"
			}
			for _, x := range neighbours {
				if x.LinkIndex == 1 {
					continue // the loopback device has what it likes
				}
				out[fmt.Sprintf("neighbour %v", x)] = "there"
			}
		}
		for _, pattern := range []string{"ipv[46]/*", "ipv[46]/conf/all/*", "ipv[46]/conf/default/*", "ipv[46]/neigh/default/*", "core/*"} {
			files, err := filepath.Glob("/proc/sys/net/" + pattern)
			if err != nil {
				return err
			}
			for _, file := range files {
				if strings.HasSuffix(file, "stable_secret") {
					continue // cannot be read before it is set
				}
				if text, err := os.ReadFile(file); err == nil {
					out[file] = strings.TrimSpace(string(text))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
