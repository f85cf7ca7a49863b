package nameserver

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/headgate/headgate/redirect"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// freePort is one that is free for UDP and TCP, on both loopback addresses.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 50 {
		c, err := net.ListenPacket("udp", "[::1]:0")
		must(t, err)
		port := c.LocalAddr().(*net.UDPAddr).Port
		_ = c.Close()
		free := true
		for _, at := range []string{"127.0.0.1", "::1"} {
			l, err := net.Listen("tcp", net.JoinHostPort(at, fmt.Sprint(port)))
			if free = free && err == nil; err == nil {
				_ = l.Close()
			}
		}
		if free {
			return uint16(port)
		}
	}
	t.Fatal("no port is free")
	return 0
}

func loopback() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
}

func testZone() *redirect.Zone {
	addrs := func(all ...string) (out []netip.Addr) {
		for _, a := range all {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	return &redirect.Zone{
		Domain: "cluster.local", Listen: loopback(),
		Names: map[string][]netip.Addr{
			"deathstar.default.svc": addrs("10.96.0.10", "fd00:96::10"), "old.default.svc": addrs("10.96.0.11"),
			"tie.default.endpoint": addrs("10.210.0.2"),
		},
	}
}

func start(t *testing.T, z *redirect.Zone) *Server {
	t.Helper()
	for {
		s := &Server{Port: freePort(t), Logger: slog.New(slog.DiscardHandler), forward: forwarder{within: time.Minute}}
		s.Update(z)
		on, err := s.Status()
		if err != nil && strings.Contains(err.Error(), "in use") { // somebody took it since
			s.Close()
			continue
		}
		t.Cleanup(s.Close)
		if !on || err != nil {
			t.Fatalf("on: %v, %v", on, err)
		}
		return s
	}
}

func (s *Server) asked(t *testing.T, network string, at netip.Addr, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: time.Minute}
	a, _, err := c.Exchange(q, netip.AddrPortFrom(at, s.Port).String())
	must(t, err)
	return a
}

// words are the answers of a message, sorted.
func words(a *dns.Msg) string {
	var out []string
	for _, rr := range a.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestZone(t *testing.T) {
	s := start(t, testZone())
	for _, c := range []struct {
		name  string
		qtype uint16
		code  int
		want  string
	}{
		{"deathstar.default.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "10.96.0.10"},
		{"DeathStar.default.SVC.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, "fd00:96::10"},
		{"old.default.svc.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, ""},
		{"tie.default.endpoint.cluster.local.", dns.TypeA, dns.RcodeSuccess, "10.210.0.2"},
		{"deathstar.default.svc.cluster.local.", dns.TypeMX, dns.RcodeSuccess, ""},
		{"default.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, ""},
		{"cluster.local.", dns.TypeA, dns.RcodeSuccess, ""},
		{"cluster.local.", dns.TypeSOA, dns.RcodeSuccess, "ns.dns.cluster.local. hostmaster.cluster.local. 1 3600 600 86400 5"},
		{"cluster.local.", dns.TypeNS, dns.RcodeSuccess, "ns.dns.cluster.local."},
		{"alderaan.default.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, ""},
		{"a.deathstar.default.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, ""},
		{"www.example.com.default.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, ""},
		{"10.0.96.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, "deathstar.default.svc.cluster.local."},
		{"10.0.96.10.in-addr.arpa.", dns.TypeA, dns.RcodeSuccess, ""},
		{"9.9.9.9.in-addr.arpa.", dns.TypePTR, dns.RcodeRefused, ""}, // another may know
		{"2.0.210.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, "tie.default.endpoint.cluster.local."},
		{"www.example.com.", dns.TypeA, dns.RcodeRefused, ""}, // nobody to ask
		{"notcluster.local.", dns.TypeA, dns.RcodeRefused, ""},
	} {
		for _, network := range []string{"udp", "tcp"} {
			for _, at := range loopback() {
				q := new(dns.Msg).SetQuestion(c.name, c.qtype).SetEdns0(4096, false)
				a := s.asked(t, network, at, q)
				if a.Rcode != c.code || words(a) != c.want {
					t.Errorf("%s %s over %s: %s %q, want %s %q", c.name, dns.Type(c.qtype), network, dns.RcodeToString[a.Rcode], words(a), dns.RcodeToString[c.code], c.want)
				}
				ours := strings.HasSuffix(strings.ToLower(c.name), ".cluster.local.") || c.name == "cluster.local."
				if ours && (!a.Authoritative || len(a.Answer) == 0 && len(a.Ns) != 1 || a.IsEdns0() == nil || a.Question[0].Name != c.name) {
					t.Errorf("%s: the answer is\n%s", c.name, a)
				}
			}
		}
	}
	reverse, err := dns.ReverseAddr("fd00:96::10")
	must(t, err)
	if a := s.asked(t, "udp", loopback()[0], new(dns.Msg).SetQuestion(reverse, dns.TypePTR)); words(a) != "deathstar.default.svc.cluster.local." {
		t.Errorf("PTR: %s", a)
	}
}

// What is no question that can be answered is refused as the protocol has it.
func TestBadQuestions(t *testing.T) {
	s := start(t, testZone())
	question := func(change func(*dns.Msg)) *dns.Msg {
		q := new(dns.Msg).SetQuestion("deathstar.default.svc.cluster.local.", dns.TypeA)
		change(q)
		return q
	}
	for code, q := range map[int]*dns.Msg{
		dns.RcodeNotImplemented: question(func(q *dns.Msg) { q.Opcode = dns.OpcodeNotify }),
		dns.RcodeRefused:        question(func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }),
	} {
		if a := s.asked(t, "udp", loopback()[0], q); a.Rcode != code || len(a.Answer) > 0 {
			t.Errorf("want %s, got\n%s", dns.RcodeToString[code], a)
		}
	}
}

// Names come and go, and with none nothing listens.
func TestUpdate(t *testing.T) {
	z := testZone()
	s := start(t, z)
	next := *z
	next.Names = map[string][]netip.Addr{"new.default.svc": {netip.MustParseAddr("10.96.0.12")}}
	s.Update(&next)
	if a := s.asked(t, "udp", loopback()[0], new(dns.Msg).SetQuestion("new.default.svc.cluster.local.", dns.TypeA)); words(a) != "10.96.0.12" {
		t.Errorf("new: %s", a)
	}
	if a := s.asked(t, "udp", loopback()[0], new(dns.Msg).SetQuestion("old.default.svc.cluster.local.", dns.TypeA)); a.Rcode != dns.RcodeNameError {
		t.Errorf("old: %s", a)
	}
	// Another process takes over before this one ends.
	successor := &Server{Port: s.Port, Logger: s.Logger}
	t.Cleanup(successor.Close)
	successor.Update(z)
	if _, err := successor.Status(); err != nil {
		t.Error("two at a time:", err)
	}
	s.Close()
	s.Update(&next) // in vain
	if a := s.asked(t, "tcp", loopback()[1], new(dns.Msg).SetQuestion("old.default.svc.cluster.local.", dns.TypeA)); words(a) != "10.96.0.11" {
		t.Errorf("the successor says %s", a)
	}
	successor.Update(nil)
	if c, err := net.Dial("tcp", netip.AddrPortFrom(loopback()[0], s.Port).String()); err == nil {
		c.Close()
		t.Error("somebody listens still")
	}
}

// An address that is another's is said to be, and tried again.
func TestPortTaken(t *testing.T) {
	var other net.PacketConn
	var s *Server
	for {
		var err error
		other, err = net.ListenPacket("udp", "127.0.0.1:0")
		must(t, err)
		defer other.Close()
		s = &Server{Port: uint16(other.LocalAddr().(*net.UDPAddr).Port), Logger: slog.New(slog.DiscardHandler)}
		defer s.Close()
		s.Update(testZone())
		if _, err = s.Status(); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Fatalf("status: %v", err)
		}
		if strings.Count(err.Error(), "in use") == 1 { // and not somebody else's as well
			break
		}
		s.Close()
	}
	if a := s.asked(t, "tcp", loopback()[0], new(dns.Msg).SetQuestion("old.default.svc.cluster.local.", dns.TypeA)); words(a) != "10.96.0.11" {
		t.Errorf("the other listeners say %s", a)
	}
	other.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := s.Status(); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// upstream answers for other names.
func upstream(t *testing.T, answer func(q *dns.Msg) *dns.Msg) netip.AddrPort {
	t.Helper()
	packets, stream := listenBoth(t)
	for network, l := range map[string]*dns.Server{"udp": {PacketConn: packets}, "tcp": {Listener: stream}} {
		ready := make(chan struct{})
		l.NotifyStartedFunc = func() { close(ready) }
		l.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			a := answer(q)
			if a == nil {
				return
			}
			if network == "udp" {
				a.Truncate(dns.MinMsgSize)
			}
			_ = w.WriteMsg(a)
		})
		go func() { _ = l.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() { _ = l.Shutdown() })
	}
	return stream.Addr().(*net.TCPAddr).AddrPort()
}

// listenBoth listens for both on one port.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		stream, err := net.Listen("tcp", netip.AddrPortFrom(loopback()[0], 0).String())
		must(t, err)
		packets, err := net.ListenPacket("udp", stream.Addr().String())
		if err == nil {
			return packets, stream
		}
		_ = stream.Close()
	}
}

func TestForward(t *testing.T) {
	world := upstream(t, func(q *dns.Msg) *dns.Msg {
		a := new(dns.Msg).SetReply(q)
		switch q.Question[0].Name {
		case "www.example.com.":
			a.Answer = append(a.Answer, &dns.A{Hdr: header(q.Question[0].Name, dns.TypeA), A: net.IPv4(192, 0, 2, 7)})
		case "long.example.com.":
			for i := range 100 {
				a.Answer = append(a.Answer, &dns.A{Hdr: header(q.Question[0].Name, dns.TypeA), A: net.IPv4(192, 0, 2, byte(i))})
			}
		case "other.example.com.":
			a.Question[0].Name = "www.example.com."
		default:
			a.Rcode = dns.RcodeNameError
		}
		return a
	})
	z := testZone()
	dead := netip.AddrPortFrom(loopback()[0], freePort(t)) // nobody is there
	z.Upstreams, z.Listen = []netip.AddrPort{dead, world}, loopback()[1:]
	s := start(t, z)
	ask := func(network, name string) *dns.Msg {
		t.Helper()
		return s.asked(t, network, loopback()[1], new(dns.Msg).SetQuestion(name, dns.TypeA))
	}
	if a := ask("udp", "www.example.com."); words(a) != "192.0.2.7" || a.Authoritative {
		t.Errorf("www: %s", a)
	}
	if a := ask("udp", "no.example.com."); a.Rcode != dns.RcodeNameError {
		t.Errorf("no: %s", a)
	}
	if a := ask("udp", "long.example.com."); !a.Truncated {
		t.Errorf("long, over UDP: %s", a)
	}
	if a := ask("tcp", "long.example.com."); a.Truncated || len(a.Answer) != 100 {
		t.Errorf("long, over TCP: %s", a)
	}
	if a := ask("udp", "other.example.com."); a.Rcode != dns.RcodeServerFailure {
		t.Errorf("an answer to another question: %s", a)
	}
	if a := ask("udp", "deathstar.default.svc.cluster.local."); words(a) != "10.96.0.10" {
		t.Errorf("deathstar: %s", a)
	}
}

// Who is no workload here is refused.
func TestStrangers(t *testing.T) {
	z := newZone(&redirect.Zone{Domain: "cluster.local", Clients: []netip.Prefix{netip.MustParsePrefix("10.210.0.0/16"), netip.MustParsePrefix("fd00:210::/64")}})
	for from, want := range map[string]bool{
		"10.210.3.4": true, "fd00:210::7": true, "127.0.0.1": true, "::1": true, "::ffff:10.210.0.1": true,
		"10.211.0.1": false, "192.0.2.1": false, "fd00:211::1": false,
	} {
		if got := z.mayAsk(&net.UDPAddr{IP: net.ParseIP(from), Port: 1000}); got != want {
			t.Errorf("%s may ask: %v, want %v", from, got, want)
		}
	}
}

// The file of upstreams is that of the host; it may change, or point to ourselves.
func TestUpstreams(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(file, []byte("# c\nnameserver 192.0.2.53\nnameserver 127.0.0.1\nnameserver 2001:db8::53\nsearch x\n"), 0o644))
	z := newZone(&redirect.Zone{Domain: "cluster.local", Listen: loopback(), ResolvConf: file})
	var f forwarder
	if got := fmt.Sprint(f.upstreams(z)); got != "[192.0.2.53:53 [2001:db8::53]:53]" {
		t.Error(got)
	}
	must(t, os.Remove(file))
	f.looked = time.Time{}
	if got := fmt.Sprint(f.upstreams(z)); got != "[192.0.2.53:53 [2001:db8::53]:53]" {
		t.Error("without the file:", got)
	}
	must(t, os.WriteFile(file, []byte("nameserver 192.0.2.54\n"), 0o644))
	if got := fmt.Sprint(f.upstreams(z)); got != "[192.0.2.54:53]" {
		t.Error("with another:", got)
	}
}
