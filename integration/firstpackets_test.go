package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// firstPackets is a workload that asks for names and connects at once, and what is known
// of the moment at which that goes wrong.
type firstPackets struct {
	*node
	o      *outside
	client *workload
	pulse  *pulse
	seen   evidence
}

// TestFirstPackets asks for a name and connects at once, over and over, while policy
// changes and the agent is killed: no answer and no first packet is ever lost. 'make soak'
// does so 100,000 times; with HEADGATE_STALLS agent and proxy are stopped for a while, too.
func TestFirstPackets(t *testing.T) {
	t.Parallel()
	rounds := 1500
	if s := soakRounds(); s > 0 {
		rounds = s
	}
	n := startNode(t)
	f := &firstPackets{node: n, o: n.uplink(t), pulse: startPulse(t)}
	f.seen.began = time.Now()
	var ttl atomic.Uint32
	ttl.Store(300)
	f.o.serveNames(t, &ttl)
	f.o.serveWeb(t, 80)
	f.client = n.workload(t, "client", "app=client")
	n.apply(t, namePolicy("p", "client", toNames(port80, "*.example.com")))
	if os.Getenv("HEADGATE_STALLS") != "" {
		f.stall(t)
	}

	const workers = 4
	failed := make(chan error, workers)
	for w := range workers {
		a := f.o.asker(t, f.client)
		go func() {
			for i := w; i < rounds && !t.Failed(); i += workers {
				if err := f.round(a, i); err != nil {
					failed <- fmt.Errorf("worker %d, round %d: %w", w, i, err)
					return
				}
			}
			failed <- nil
		}()
	}
	changes, kills := 0, 0
	for left := workers; left > 0; changes++ {
		select {
		case err := <-failed:
			left--
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Millisecond):
		}
		if t.Failed() { // the others are about to end
			continue
		}
		if changes%20 == 10 {
			f.seen.note("agent killed", n.killAgent)
			f.seen.note("agent started", func() { n.startAgent(t) })
			kills++
		}
		f.seen.note("policy changed", func() {
			n.apply(t, namePolicy("p", "client", toNames(port80, "*.example.com"), toNames(port80, fmt.Sprintf("x%d.example.org", changes))))
		})
	}
	if t.Failed() {
		t.Log(f.seen.String())
	}
	words := "" // an agent that was started just now has not heard from the proxy yet
	for deadline := time.Now().Add(20 * time.Second); words == "" && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		words = statusLine(n.headgate(t, "status"), "Fqdn")
	}
	t.Logf("%d look-ups and first packets during %d changes of policy and %d deaths of the agent, in %s; this process was late by at most %s, and refused %d connections; %s",
		rounds, changes, kills, time.Since(f.seen.began).Round(time.Second), f.pulse.worst(time.Time{}), f.o.overflows(), words)
}

// round asks for a name and connects to what it is told.
func (f *firstPackets) round(a *asker, i int) error {
	name, start := fmt.Sprintf("n%d.example.com", i%60000), time.Now()
	watched := f.watch("asks for "+name, named(4, i%60000), 1500*time.Millisecond)
	code, ip, err := a.ask(name, 4)
	watched()
	if err != nil || code != dns.RcodeSuccess {
		return f.failure(start, ip, "ask for %s: %s, %v", name, dns.RcodeToString[code], err)
	}
	// A SYN that is lost is sent again after a second.
	start = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	watched = f.watch("connects to "+name, ip, 500*time.Millisecond)
	c, err := f.client.connect(ctx, unix.SOCK_STREAM, netip.AddrPort{}, netip.AddrPortFrom(ip, 80))
	watched()
	if err != nil {
		return f.failure(start, ip, "connect to %s (%s): %w", name, ip, err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0)
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	if r := retransmits(raw); r > 0 {
		return f.failure(start, ip, "the first packet to %s (%s) was lost, %d were repeated", name, ip, r)
	}
	return nil
}

// stall stops agent and proxy now and then, for less than an answer may take.
func (f *firstPackets) stall(t *testing.T) {
	proxy, end, ended := f.proxyPID(t), make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(end); <-ended })
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(time.Duration(rand.IntN(3000)) * time.Millisecond):
			}
			pid, who := proxy, "proxy"
			if rand.IntN(2) == 0 {
				pid, who = f.agentPID(), "agent"
			}
			if pid == 0 {
				continue
			}
			took := time.Duration(300+rand.IntN(1000)) * time.Millisecond
			f.seen.note(who+" stopped", func() {
				_ = unix.Kill(pid, unix.SIGSTOP)
				time.Sleep(took)
				_ = unix.Kill(pid, unix.SIGCONT)
			})
		}
	}()
}

// soakRounds is how often a soak does it; 0: this is none.
func soakRounds() int {
	n, _ := strconv.Atoi(os.Getenv("HEADGATE_SOAK"))
	return n
}

// retransmits counts what a connection has sent more than once.
func retransmits(raw syscall.RawConn) (n uint32) {
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Total_retrans
		}
	})
	return n
}

func statusLine(status, name string) string {
	for line := range strings.Lines(status) {
		if strings.HasPrefix(line, name) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// pulse tells how late this process is when it wants to run: what says that the machine is
// starved, and not the product slow.
type pulse struct {
	mu   sync.Mutex
	late []lateness
}

type lateness struct {
	at time.Time
	by time.Duration
}

func startPulse(t *testing.T) *pulse {
	p, end := &pulse{}, make(chan struct{})
	t.Cleanup(func() { close(end) })
	go func() {
		const every = 10 * time.Millisecond
		for last := time.Now(); ; {
			select {
			case <-end:
				return
			case <-time.After(every):
			}
			now := time.Now()
			if by := now.Sub(last) - every; by > every {
				p.mu.Lock()
				p.late = append(p.late, lateness{now, by})
				p.mu.Unlock()
			}
			last = now
		}
	}()
	return p
}

// worst is by how much it was late at most since some time.
func (p *pulse) worst(since time.Time) (most time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.late {
		if l.at.After(since) {
			most = max(most, l.by)
		}
	}
	return most
}
