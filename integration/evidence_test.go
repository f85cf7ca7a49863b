package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/proxy"
)

// evidence is what was done to a node, and how things stood there when something took too long.
type evidence struct {
	mu     sync.Mutex
	began  time.Time
	events []string
	looked int // how often somebody looked how things stand
	stands []string
}

// eventsKept is how many of the last events are told.
const eventsKept = 40

// note does something and remembers when.
func (e *evidence) note(what string, do func()) {
	e.add(what + " …")
	start := time.Now()
	do()
	e.add(fmt.Sprintf("%s, after %s", what, time.Since(start).Round(time.Millisecond)))
}

func (e *evidence) add(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, fmt.Sprintf("%s (%s) %s", time.Now().Format("15:04:05.000"), time.Since(e.began).Round(time.Millisecond), what))
	e.events = e.events[max(0, len(e.events)-eventsKept):]
}

func (e *evidence) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return "what happened, to the last:\n  " + strings.Join(e.events, "\n  ") + "\n" + strings.Join(e.stands, "\n")
}

// looksMost bounds how often somebody looks: it takes time that the node needs.
const looksMost = 6

// watch looks how things stand if something is not over soon.
func (f *firstPackets) watch(what string, ip netip.Addr, soon time.Duration) (over func()) {
	t := time.AfterFunc(soon, func() {
		f.seen.mu.Lock()
		f.seen.looked++
		enough := f.seen.looked > looksMost
		f.seen.mu.Unlock()
		f.seen.add(what + " for " + soon.String())
		if enough {
			return
		}
		stand := f.stand(ip)
		f.seen.mu.Lock()
		defer f.seen.mu.Unlock()
		f.seen.stands = append(f.seen.stands, "— while it "+what+":\n"+stand)
	})
	return func() { t.Stop() }
}

// failure says what went wrong, for how long, and how late this very process was meanwhile.
func (f *firstPackets) failure(start time.Time, ip netip.Addr, format string, args ...any) error {
	f.seen.add(fmt.Sprintf(format, args...))
	err := fmt.Errorf(format, args...)
	return fmt.Errorf("%w; it began at %s and took %s, this process was late by at most %s meanwhile, and its servers have refused %d connections so far; now:\n%s",
		err, start.Format("15:04:05.000"), time.Since(start), f.pulse.worst(start), f.o.overflows(), f.stand(ip))
}

// stand is what kernel, proxy and agent say now, also if the agent is dead.
func (f *firstPackets) stand(ip netip.Addr) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  at %s:\n%s", time.Now().Format("15:04:05.000"), f.kernelKnows(ip))
	for _, args := range [][]string{
		{"status"}, {"bpf", "endpoint", "list"}, {"bpf", "subject", "list"}, {"bpf", "drops", "list"}, {"observe", "--verdict", "DROPPED", "--last", "10", "--time-format", "RFC3339Milli"},
		{"observe", "--ip", ip.String(), "--last", "10", "--time-format", "RFC3339Milli"}, {"observe", "--protocol", "dns", "--last", "10", "--time-format", "RFC3339Milli"},
	} {
		fmt.Fprintf(&b, "  headgate %s:\n    %s\n", strings.Join(args, " "), strings.ReplaceAll(f.says(args...), "\n", "\n    "))
	}
	for _, log := range []string{filepath.Join(f.run(), "proxy.log"), f.agentLog()} {
		text, _ := os.ReadFile(log)
		fmt.Fprintf(&b, "  %s:\n%s\n", filepath.Base(log), text[max(0, len(text)-3000):])
	}
	return b.String()
}

// overflows is how many connections the outside's own listeners had no room for: packets that
// the test lost, and nobody else.
func (o *outside) overflows() (n uint64) {
	_ = o.do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netstat")
		lines := strings.Split(string(text), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			if at := slices.Index(names, "ListenOverflows"); at >= 0 && at < len(values) {
				n, err = strconv.ParseUint(values[at], 10, 64)
			}
		}
		return err
	})
	return n
}

// says is what a command prints, whether it works or not.
func (f *firstPackets) says(args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.binary, args...)
	cmd.Env = append(os.Environ(), "HEADGATE_SOCKET="+filepath.Join(f.run(), "headgate.sock"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	c, err := f.start(cmd)
	if err != nil {
		return err.Error()
	}
	<-c.done
	return out.String()
}

// kernelKnows is as what the gate knows an address, and what rules say of it: read from the
// maps that the proxy has, for which no agent is needed.
func (f *firstPackets) kernelKnows(ip netip.Addr) string {
	names, err := f.namesOfProxy()
	if err != nil {
		return "    " + err.Error() + "\n"
	}
	var b strings.Builder
	ids := map[policy.Identity]bool{}
	err = names.All(func(k policy.NameKey, id policy.Identity) bool {
		if k.Addr == ip {
			ids[id] = true
			fmt.Fprintf(&b, "    endpoint %d knows %s as %d\n", k.Endpoint, k.Addr, id)
		}
		return true
	})
	rules, e := names.Rules()
	for k, r := range rules {
		fmt.Fprintf(&b, "    table %d about %d (of the address: %t): %v\n", k.Table, k.Identity, ids[k.Identity], r)
	}
	if err != nil || e != nil {
		fmt.Fprintf(&b, "    %v %v\n", err, e)
	}
	return b.String()
}

// namesOfProxy are the maps of names, by the proxy's own descriptors.
func (n *node) namesOfProxy() (*bpf.Names, error) {
	pid := n.childNamed("proxy")
	if pid == 0 {
		return nil, fmt.Errorf("there is no proxy")
	}
	var maps [2]int
	for i, fd := range []int{proxy.DescriptorNames, proxy.DescriptorRules} {
		var err error
		if maps[i], err = descriptorOf(pid, fd); err != nil {
			return nil, err
		}
	}
	return bpf.OpenNames(maps)
}

// descriptorOf copies a descriptor of another process.
func descriptorOf(pid, fd int) (int, error) {
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(p)
	out, err := unix.PidfdGetfd(p, fd, 0)
	if err != nil {
		return 0, fmt.Errorf("copy descriptor %d of process %d: %w", fd, pid, err)
	}
	return out, nil
}

// childNamed finds the process of this node that runs a subcommand; 0: there is none.
func (n *node) childNamed(subcommand string) int {
	for _, pid := range processes() {
		words := strings.Fields(commandLine(pid))
		if len(words) > 1 && words[1] == subcommand && slices.Contains(words, n.run()) && running(pid) {
			return pid
		}
	}
	return 0
}

// agentPID is that of the agent that runs now; 0: none does.
func (n *node) agentPID() int { return n.childNamed("agent") }
