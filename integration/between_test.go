package integration

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/proxy"
)

// TestAgentDiesBetween kills the agent when the proxy has its new rules about names and the
// gate has not heard of them. Traffic goes on by those of before, for as long as no agent
// comes, and the next agent has the new ones in force.
func TestAgentDiesBetween(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	o := n.uplink(t)
	var ttl atomic.Uint32
	ttl.Store(300)
	o.serveNames(t, &ttl)
	o.serveWeb(t, 80)
	client := n.workload(t, "client", "app=client")
	n.apply(t, namePolicy("p", "client", toNames(port80, "*.example.com")))
	a := o.asker(t, client)
	const names = 2000 // so that the proxy is busy for a moment
	for i := range names {
		a.mustAsk(t, fmt.Sprintf("n%d.example.com", i), 4)
	}
	judged := n.judged(t, client.addr(4))
	kernel, err := n.namesOfProxy()
	if err != nil {
		t.Fatal(err)
	}
	stays := func(what, name string) {
		t.Helper()
		client.mustAsk(t, netip.AddrPortFrom(a.mustAsk(t, name, 4), 80), "GET", "/", 200)
		if t.Failed() {
			t.Fatal(what)
		}
	}

	between, try := false, 0
	process := n.childNamed("proxy")
	for ; !between && try < 30; try++ {
		before, known := judged(), tablesIn(kernel)
		also := []string{"*.example.com", fmt.Sprintf("x%d.example.org", try)}
		if try%2 == 0 { // with it, or without, all that are known get other identities
			also = append(also, "n*.example.com")
		}
		done := make(chan outcome, 1)
		go func() {
			done <- n.try(t, namePolicy("p", "client", toNames(port80, also...)), "policy", "apply", "-f", "-")
		}()
		// The proxy goes by small steps, so that it is seen before it has answered.
		for deadline := time.Now().Add(patience); len(done) == 0 && time.Now().Before(deadline); {
			_ = unix.Kill(process, unix.SIGSTOP)
			if len(tablesIn(kernel)) > len(known) {
				break
			}
			_ = unix.Kill(process, unix.SIGCONT)
			time.Sleep(500 * time.Microsecond)
		}
		n.killAgent()
		between = judged() == before
		_ = unix.Kill(process, unix.SIGCONT)
		<-done
		if !between {
			n.startAgent(t)
		}
	}
	if !between {
		t.Fatalf("in %d tries the agent never died between proxy and gate", try)
	}
	// Longer than the proxy keeps what nobody goes by, and takes to look for it.
	for i, end := 0, time.Now().Add(12*time.Second); time.Now().Before(end); i++ {
		stays("what was known before", fmt.Sprintf("n%d.example.com", 1+i%names))
		stays("what is learnt without an agent", fmt.Sprintf("n%d.example.com", names+i))
		time.Sleep(200 * time.Millisecond)
	}
	n.startAgent(t)
	stays("with the next agent", "n1.example.com")
	stays("a rule that came between", fmt.Sprintf("n%d.example.com", 3*names))
	t.Logf("at try %d the agent died between proxy and gate", try)
}

// judged tells by which table of rules about names the gate judges an address, for which no
// agent is needed.
func (n *node) judged(t *testing.T, addr netip.Addr) func() uint32 {
	t.Helper()
	var maps [2]int
	for i, fd := range []int{proxy.DescriptorEnds, proxy.DescriptorSubjects} {
		var err error
		if maps[i], err = descriptorOf(n.childNamed("proxy"), fd); err != nil {
			t.Fatal(err)
		}
	}
	ends, err := bpf.OpenEndpoints(maps[0])
	if err != nil {
		t.Fatal(err)
	}
	j, err := bpf.OpenJudged(ends, maps[1])
	if err != nil {
		t.Fatal(err)
	}
	return func() uint32 {
		table, err := j.NameTable(addr)
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
}

// tablesIn are those of which the kernel has rules; what changes meanwhile may be missing.
func tablesIn(names *bpf.Names) map[uint32]bool {
	out := map[uint32]bool{}
	rules, _ := names.Rules()
	for k := range rules {
		out[k.Table] = true
	}
	return out
}
