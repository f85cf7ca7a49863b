package integration

import (
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAgentKilledAnyTime kills agents at random moments, while they start and while
// they are told of endpoints, policies and services, with either backend. The next one
// finds its way, and in the end cleanup leaves nothing (node.remove).
func TestAgentKilledAnyTime(t *testing.T) {
	backends := [][]string{nil, {"--backend", "envoy", "--envoy-path", envoyBinary(t), "--envoy-workers", "1"}}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	n := startNode(t)
	server, client := n.unconnected(t, "server"), n.unconnected(t, "client")
	server.serveWeb(t, 80)
	n.killAgent()
	rule := allow("rule", "server", fromApp("client"), 80, httpRule{"GET", "/allowed"})
	add := func(w *workload) outcome {
		return n.try(t, "", "endpoint", "add", w.name, "--netns", w.path, "--label", "app="+w.name)
	}
	tell := []func(){
		func() { add(server) },
		func() { add(client) },
		func() { n.try(t, "", "endpoint", "delete", "client") },
		func() { n.try(t, rule, "policy", "apply", "-f", "-") },
		func() { n.try(t, rule, "policy", "delete", "-f", "-") },
		func() {
			n.try(t, "", "service", "add", "web", "--vip", virtual(4, 80).String()+"/TCP", "--backend", "server")
		},
		func() { n.try(t, "", "service", "delete", "web") },
	}
	const most = 12 * time.Second
	rounds, began := 0, time.Now()
	for ; time.Since(began) < most || rounds < 6; rounds++ {
		n.flags = backends[r.IntN(len(backends))]
		lives, told := time.Duration(r.Int64N(int64(time.Second))), r.Perm(len(tell))
		n.launchAgent(t)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, i := range told {
				select {
				case <-stop:
					return
				default:
					tell[i]()
				}
			}
		})
		time.Sleep(lives)
		n.killAgent()
		close(stop)
		wg.Wait()
	}
	t.Logf("%d agents were killed", rounds)
	for _, n.flags = range backends {
		n.startAgent(t)
		for _, w := range []*workload{server, client} {
			if o := add(w); o.code != 0 && !strings.Contains(o.stderr, "exists") {
				t.Errorf("endpoint add %s: exit code %d: %s", w.name, o.code, o.stderr)
			}
			w.read(t, n.headgate(t, "endpoint", "get", w.name, "-o", "json"))
		}
		n.apply(t, rule)
		eachVersion(t, func(t *testing.T, v ipVersion) {
			client.mustAsk(t, server.at(v, 80), "GET", "/allowed", 200)
			client.mustAsk(t, server.at(v, 80), "GET", "/denied", 403)
		})
		n.stopAgent(t)
	}
	if log, err := os.ReadFile(n.agentLog()); err != nil || strings.Contains(string(log), "goroutine ") {
		t.Errorf("an agent failed: %v", err)
	}
}
