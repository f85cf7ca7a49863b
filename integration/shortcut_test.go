package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// shortcut is a node whose clients ask the same again and again.
type shortcut struct {
	*resolving
	far   *outside
	names *movingNames
}

const (
	seenNames  = `{matchName: "seen.example.org"}, {matchName: "again.example.org"}`
	otherNames = `{matchName: "again.example.org"}`
	manyTimes  = 6 // what is asked so often takes the shortcut
)

// TestShortcut has questions and answers go on without the proxy: all of them are seen, and none
// overtakes a policy, whatever dies or is replaced.
func TestShortcut(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--fqdn-min-ttl", "1s", "--fqdn-grace", "1s", "--metrics-listen", "127.0.0.1:9964")
	s := &shortcut{resolving: &resolving{node: n, server: n.workload(t, "resolver", "app=dns"), client: n.workload(t, "client", "app=client")}, far: n.uplink(t)}
	s.server.serveUnbound(t, `  local-data: "seen.example.org. 60 IN A 192.0.2.90"
  local-data: "seen.example.org. 60 IN A 192.0.2.91"
  local-data: "seen.example.org. 60 IN AAAA 2001:db8::90"
  local-data: "again.example.org. 60 IN A 192.0.2.92"
`)
	s.names = s.far.serveMovingNames(t)
	s.far.serveWeb(t, 80)
	n.apply(t, dnsRules("client", "dns", seenNames), movingPolicy())

	t.Run("seen", s.seen)
	t.Run("taken away", s.takenAway)
	t.Run("a rule that comes later", s.comesLater)
	t.Run("first packets", s.firstPackets)
	t.Run("hostile", s.hostileToo)
	t.Run("audit", s.audited)
	t.Run("others die", s.othersDie)
	t.Run("without proxy", s.withoutProxy)
	t.Run("off", s.off)
}

// movingNames are those of a server outside, by IPv6: mI.example.com has one of eight addresses,
// now this and now that, and slow ones are answered late.
type movingNames struct {
	place [64]atomic.Uint32
	ttl   func() uint32
}

func (m *movingNames) addr(v ipVersion, i int) netip.Addr {
	return named(v, 1000+8*i+int(m.place[i].Load()))
}

func (o *outside) serveMovingNames(t *testing.T) *movingNames {
	t.Helper()
	var fixed atomic.Uint32
	o.serveNames(t, &fixed) // which has the addresses
	m := &movingNames{ttl: func() uint32 { return 1 + rand.Uint32N(3) }}
	var packets net.PacketConn
	if err := o.do(func() (err error) {
		packets, err = net.ListenPacket("udp", o.at(6, 53).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a, name, i := new(dns.Msg).SetReply(q), q.Question[0].Name, 0
		a.Compress = true
		if rest, slow := strings.CutPrefix(name, "slow-"); slow {
			name = rest
			time.Sleep(300 * time.Millisecond)
		}
		if _, err := fmt.Sscanf(name, "m%d.", &i); err != nil || i >= len(m.place) {
			a.Rcode = dns.RcodeNameError
		} else if rr, err := dns.NewRR(fmt.Sprintf("%s %d IN A %s", q.Question[0].Name, m.ttl(), m.addr(4, i))); err == nil && q.Question[0].Qtype == dns.TypeA {
			a.Answer = append(a.Answer, rr)
		}
		_ = w.WriteMsg(a)
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	return m
}

// movingPolicy lets the client ask outside for every name, and go where rules say.
func movingPolicy(rules ...string) string {
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: moving}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toCIDR: [%s/128]
    toPorts: [{ports: [{port: "53", protocol: UDP}], rules: {dns: [{matchPattern: "**"}]}}]
%s`, farAddr(6), strings.Join(rules, "\n"))
}

// repeater asks by one socket, with ids in order.
type repeater struct {
	*dns.Conn
	id uint16
}

func (s *shortcut) repeater(t *testing.T, server netip.AddrPort) *repeater {
	t.Helper()
	c, err := s.client.connect(context.Background(), unix.SOCK_DGRAM, netip.AddrPort{}, server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &repeater{Conn: &dns.Conn{Conn: c, UDPSize: 1232}, id: uint16(rand.Uint32())}
}

func (r *repeater) ask(name string, qtype uint16, change ...func(*dns.Msg)) (*dns.Msg, error) {
	return r.askWithin(patience, name, qtype, change...)
}

func (r *repeater) askWithin(within time.Duration, name string, qtype uint16, change ...func(*dns.Msg)) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(name, qtype)
	r.id++
	q.Id = r.id
	for _, f := range change {
		f(q)
	}
	_ = r.SetDeadline(time.Now().Add(within))
	if err := r.WriteMsg(q); err != nil {
		return nil, err
	}
	for {
		a, err := r.ReadMsg()
		if err != nil {
			return nil, fmt.Errorf("question %d of %s: %w", q.Id, r.LocalAddr(), err)
		}
		if a.Id == q.Id {
			return a, nil
		}
	}
}

// mustAsk wants answers without error, so many times.
func (r *repeater) mustAsk(t *testing.T, times int, name string, qtype uint16, change ...func(*dns.Msg)) (last *dns.Msg) {
	t.Helper()
	for range times {
		a, err := r.ask(name, qtype, change...)
		if err != nil || a.Rcode != dns.RcodeSuccess {
			t.Fatalf("%s: %v, %v", name, a, err)
		}
		last = a
	}
	return last
}

// events counts what the proxy says of questions. It is asked every two seconds.
func (n *node) events(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for line := range strings.Lines(n.scrape(t)) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), `headgate_dns_events_total{event="`)
		event, count, found := strings.Cut(rest, `"} `)
		if ok && found {
			f, err := strconv.ParseFloat(count, 64)
			if err != nil {
				t.Fatal(line)
			}
			out[event] = int(f)
		}
	}
	return out
}

// rises waits until so many more have been told in the gate than before.
func (s *shortcut) rises(t *testing.T, before map[string]int, by int) {
	t.Helper()
	eventually(t, patience, "answers that go on without the proxy", func() error {
		now := s.events(t)
		if more := now["told"] - before["told"]; more < by || now["shortcut"]-before["shortcut"] < more {
			return fmt.Errorf("before %v, now %v", before, now)
		}
		return nil
	})
}

// counted waits until the flows of a name are so many questions, and as many answers, and wants
// no more of them.
func (s *shortcut) counted(t *testing.T, name string, want int, good func(*flowpb.Flow) error) {
	t.Helper()
	count := func() error {
		kinds := map[flowpb.L7FlowType]int{}
		for _, f := range s.flows(t, "--protocol", "dns") {
			if f.GetL7().GetDns().GetQuery() != name {
				continue
			}
			kinds[f.GetL7().GetType()]++
			if err := good(f); err != nil {
				t.Errorf("%v: %v", err, f)
			}
		}
		if kinds[flowpb.L7FlowType_REQUEST] != want || kinds[flowpb.L7FlowType_RESPONSE] != want {
			return fmt.Errorf("%d questions and %d answers of %d are seen", kinds[flowpb.L7FlowType_REQUEST], kinds[flowpb.L7FlowType_RESPONSE], want)
		}
		return nil
	}
	eventually(t, patience, "the flows of "+name, count)
	time.Sleep(500 * time.Millisecond)
	if err := count(); err != nil {
		t.Errorf("and then: %v", err)
	}
}

// seen wants every question and answer among the flows, once.
func (s *shortcut) seen(t *testing.T) {
	before, asked := s.events(t), 0
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for range 2 { // ports
			r := s.repeater(t, s.server.at(v, 53))
			for i := range 50 {
				name := []string{"seen.example.org.", "SeEn.eXample.oRg."}[i/2%2]
				qtype := []uint16{dns.TypeA, dns.TypeAAAA}[i%2]
				a := r.mustAsk(t, 1, name, qtype, func(q *dns.Msg) {
					if i%3 == 0 {
						q.SetEdns0(1232, i%2 == 0)
					}
				})
				if asked++; len(a.Answer) != 2-i%2 || a.Question[0].Name != name || (a.IsEdns0() != nil) != (i%3 == 0) {
					t.Fatalf("%v", a)
				}
			}
		}
	})
	dig := needProgram(t, "dig")
	for range manyTimes {
		out, err := s.client.output(dig, "@"+s.server.addr(6).String(), "+tries=1", "seen.example.org", "AAAA")
		if asked++; err != nil || !strings.Contains(out, "2001:db8::90") {
			t.Errorf("dig: %v\n%s", err, out)
		}
	}
	s.rises(t, before, asked/4)
	s.counted(t, "seen.example.org.", asked, func(f *flowpb.Flow) error {
		d := f.GetL7().GetDns()
		if f.GetVerdict() != flowpb.Verdict_FORWARDED {
			return errors.New("a verdict")
		}
		if f.GetL7().GetType() == flowpb.L7FlowType_REQUEST {
			return nil
		}
		ips := slices.Sorted(slices.Values(d.GetIps()))
		want := map[string][]string{"A": {"192.0.2.90", "192.0.2.91"}, "AAAA": {"2001:db8::90"}}[strings.Join(d.GetQtypes(), "")]
		if !slices.Equal(ips, want) || d.GetTtl() != 60 || f.GetL7().GetLatencyNs() == 0 || f.GetL7().GetLatencyNs() > uint64(patience) {
			return errors.New("an answer")
		}
		return nil
	})
}

// takenAway wants that the first question after a change of policy is judged by it.
func (s *shortcut) takenAway(t *testing.T) {
	eachVersion(t, func(t *testing.T, v ipVersion) {
		r := s.repeater(t, s.server.at(v, 53))
		for range 4 {
			r.mustAsk(t, manyTimes, "seen.example.org.", dns.TypeA)
			s.apply(t, dnsRules("client", "dns", otherNames))
			if a, err := r.ask("seen.example.org.", dns.TypeA); err != nil || a.Rcode != dns.RcodeRefused || len(a.Answer) > 0 {
				t.Errorf("a name that was taken away: %v, %v", a, err)
			}
			s.apply(t, dnsRules("client", "dns", seenNames))
		}
	})
}

// connectsAtOnce wants that the first packet is not lost.
func (s *shortcut) connectsAtOnce(ip netip.Addr) error {
	start := time.Now()
	c, err := s.client.dial(netip.AddrPortFrom(ip, 80), patience)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", ip, err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0)
	if raw, err := c.(*net.TCPConn).SyscallConn(); err == nil {
		if r := retransmits(raw); r > 0 {
			return fmt.Errorf("the first packet to %s was lost, %d were repeated in %s", ip, r, time.Since(start))
		}
	}
	return nil
}

func firstAddr(a *dns.Msg) netip.Addr {
	for _, rr := range a.Answer {
		if a, ok := rr.(*dns.A); ok {
			ip, _ := netip.AddrFromSlice(a.A.To4())
			return ip
		}
	}
	return netip.Addr{}
}

// comesLater has rules be about names that were told before.
func (s *shortcut) comesLater(t *testing.T) {
	r := s.repeater(t, s.far.at(6, 53))
	var rules []string
	for i := range 5 {
		name := fmt.Sprintf("m%d.example.com", i)
		ip := firstAddr(r.mustAsk(t, manyTimes, name+".", dns.TypeA))
		if i == 0 {
			s.client.mustNotConnect(t, netip.AddrPortFrom(ip, 80))
		}
		rules = append(rules, toNames(port80, name))
		s.apply(t, movingPolicy(rules...))
		if err := s.connectsAtOnce(firstAddr(r.mustAsk(t, 1, name+".", dns.TypeA))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// firstPackets asks and connects at once, while names move and policy changes. What names have
// left is closed soon.
func (s *shortcut) firstPackets(t *testing.T) {
	const names, workers = 24, 4
	rounds := max(soakRounds(), 3000)
	before := s.events(t)
	s.apply(t, movingPolicy(toNames(port80, "*.example.com")))
	failed := make(chan error, workers)
	for w := range workers {
		r := s.repeater(t, s.far.at(6, 53))
		go func() {
			for i := range rounds / workers {
				a, err := r.ask(fmt.Sprintf("m%d.example.com.", (i+w*5)%names), dns.TypeA)
				if err == nil && (a.Rcode != dns.RcodeSuccess || !firstAddr(a).IsValid()) {
					err = fmt.Errorf("%v", a)
				}
				if err == nil {
					err = s.connectsAtOnce(firstAddr(a))
				}
				if err != nil {
					failed <- fmt.Errorf("look-up %d: %w", i, err)
					return
				}
			}
			failed <- nil
		}()
	}
	changes := 0
	for left := workers; left > 0; changes++ {
		select {
		case err := <-failed:
			left--
			if err != nil {
				t.Error(err)
			}
		case <-time.After(50 * time.Millisecond):
		}
		s.names.place[rand.IntN(names)].Store(rand.Uint32N(8))
		if changes%4 == 0 {
			s.apply(t, movingPolicy(toNames(port80, "*.example.com"), toNames(port80, fmt.Sprintf("x%d.example.org", changes))))
		}
	}
	s.rises(t, before, rounds/20)
	now := s.events(t)
	t.Logf("%d look-ups and first packets during %d changes, %d answers by the shortcut, %d questions", rounds, changes, now["told"]-before["told"], now["shortcut"]-before["shortcut"])

	r := s.repeater(t, s.far.at(6, 53))
	var gone []netip.Addr
	for i := range 3 {
		gone = append(gone, firstAddr(r.mustAsk(t, manyTimes, fmt.Sprintf("m%d.example.com.", i), dns.TypeA)))
		s.names.place[i].Store((s.names.place[i].Load() + 1) % 8)
	}
	eventually(t, patience, "addresses that names have left are gone", func() error {
		for i := range gone { // which are asked for all the while
			if err := s.connectsAtOnce(firstAddr(r.mustAsk(t, 1, fmt.Sprintf("m%d.example.com.", i), dns.TypeA))); err != nil {
				t.Error(err)
			}
		}
		for _, e := range learnt(t, s.node) {
			for _, ip := range gone {
				if slices.Contains(e.Addresses, ip.String()) {
					return fmt.Errorf("%s of %s is known", ip, e.Name)
				}
			}
		}
		return nil
	})
	for _, ip := range gone {
		s.client.mustNotConnect(t, netip.AddrPortFrom(ip, 80))
	}
}

// hostileToo has a server send what it must not to questions that took the shortcut.
func (s *shortcut) hostileToo(t *testing.T) {
	s.apply(t, dnsRules("client", "dns", seenNames, allowedNames))
	for range manyTimes {
		s.repeater(t, s.server.at(4, 53)).mustAsk(t, 1, "www.example.org.", dns.TypeA)
	}
	before := s.events(t)
	s.hostile(t)
	eventually(t, patience, "questions that took the shortcut", func() error {
		if now := s.events(t); now["shortcut"]-before["shortcut"] < 20 {
			return fmt.Errorf("before %v, now %v", before, now)
		}
		return nil
	})
	s.apply(t, dnsRules("client", "dns", seenNames))
}

// audited wants that what audit lets go on is reported each time.
func (s *shortcut) audited(t *testing.T) {
	s.withdraw(t, movingPolicy()) // which enforces, and does not allow the server
	s.apply(t, strings.Replace(dnsRules("client", "dns", otherNames), "metadata: {name: names}", "metadata: {name: names, annotations: {headgate.dev/mode: audit}}", 1))
	r := s.repeater(t, s.server.at(4, 53))
	r.mustAsk(t, 2*manyTimes, "other.example.org.", dns.TypeA)
	eventually(t, patience, "the flows that audit reports", func() error {
		n := 0
		for _, f := range s.flows(t, "--protocol", "dns", "--verdict", "AUDIT") {
			if f.GetL7().GetDns().GetQuery() == "other.example.org." && f.GetL7().GetType() == flowpb.L7FlowType_REQUEST {
				n++
			}
		}
		if n != 2*manyTimes {
			return fmt.Errorf("%d of %d", n, 2*manyTimes)
		}
		return nil
	})
	s.apply(t, dnsRules("client", "dns", seenNames), movingPolicy())
}

// othersDie kills the agent, and has another proxy take the place of this one, while what was
// asked before is asked, also where the answer takes its time. Nothing is lost or refused.
func (s *shortcut) othersDie(t *testing.T) {
	end := make(chan struct{})
	var asking sync.WaitGroup
	var asked atomic.Int64
	load := func(server netip.AddrPort, name string) {
		r := s.repeater(t, server)
		asking.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				a, err := r.ask(name, dns.TypeA)
				if asked.Add(1); err != nil || a.Rcode != dns.RcodeSuccess || len(a.Answer) == 0 {
					t.Errorf("%s: %v, %v", name, a, err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	load(s.server.at(4, 53), "seen.example.org.")
	load(s.server.at(6, 53), "seen.example.org.")
	for i := range 8 {
		load(s.far.at(6, 53), fmt.Sprintf("slow-m%d.example.com.", i%4))
	}
	time.Sleep(time.Second)
	for range 2 {
		s.killAgent()
		time.Sleep(300 * time.Millisecond)
		s.startAgent(t)
	}
	before, pid := s.flags, s.proxyPID(t)
	s.killAgent()
	s.flags = append(slices.Clone(before), "--dns-deadline", "1999ms") // another setting: another proxy
	s.startAgent(t)
	time.Sleep(time.Second)
	close(end)
	asking.Wait()
	if s.proxyPID(t) == pid {
		t.Error("the proxy is the one of before")
	}
	s.rises(t, map[string]int{}, 10) // counted by the new one
	s.repeater(t, s.server.at(4, 53)).mustAsk(t, 50, "again.example.org.", dns.TypeA)
	s.counted(t, "again.example.org.", 50, func(*flowpb.Flow) error { return nil })
	t.Logf("%d questions", asked.Load())
}

// withoutProxy ends both: nothing goes on without a proxy, however often it did.
func (s *shortcut) withoutProxy(t *testing.T) {
	r := s.repeater(t, s.server.at(4, 53))
	r.mustAsk(t, manyTimes, "seen.example.org.", dns.TypeA)
	pid := s.proxyPID(t)
	s.killAgent()
	kill(t, pid)
	if a, err := r.askWithin(refusalTime, "seen.example.org.", dns.TypeA); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without a proxy: %v, %v", a, err)
	}
	s.startAgent(t)
	eventually(t, patience, "answers by the new proxy", func() error {
		_, err := s.repeater(t, s.server.at(4, 53)).askWithin(time.Second, "seen.example.org.", dns.TypeA)
		return err
	})
	r = s.repeater(t, s.server.at(4, 53))
	r.mustAsk(t, 4*manyTimes, "seen.example.org.", dns.TypeA)
	s.rises(t, map[string]int{}, manyTimes)
}

// off has every question come to the proxy.
func (s *shortcut) off(t *testing.T) {
	r := s.repeater(t, s.server.at(4, 53))
	r.mustAsk(t, manyTimes, "seen.example.org.", dns.TypeA)
	s.killAgent()
	s.flags = append(slices.Clone(s.flags), "--dns-shortcut=false")
	s.startAgent(t)
	r.mustAsk(t, 5*manyTimes, "seen.example.org.", dns.TypeA)
	eventually(t, patience, "the questions are counted", func() error {
		if now := s.events(t); now["query"] < 5*manyTimes || now["answer"] < 5*manyTimes {
			return fmt.Errorf("%v", now)
		}
		return nil
	})
	if now := s.events(t); now["told"] != 0 || now["shortcut"] != 0 {
		t.Errorf("with --dns-shortcut=false: %v", now)
	}
}
