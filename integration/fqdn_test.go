package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namedNet are the outside's addresses that have names.
func namedNet(v ipVersion) netip.Prefix {
	if v == 6 {
		return netip.MustParsePrefix("2001:db8:113::/64")
	}
	return netip.MustParsePrefix("203.0.0.0/16")
}

// named is the outside's address with a number.
func named(v ipVersion, i int) netip.Addr {
	a := namedNet(v).Addr().AsSlice()
	a[len(a)-2], a[len(a)-1] = byte(i>>8), byte(i)
	out, _ := netip.AddrFromSlice(a)
	return out
}

// serveNames gives the outside every address of namedNet, and a name server on port 53:
// nI.example.com is the address with the number I, and its TTL is that of the server.
func (o *outside) serveNames(t *testing.T, ttl *atomic.Uint32) {
	t.Helper()
	var packets net.PacketConn
	var stream net.Listener
	err := o.do(func() (err error) {
		lo, err := netlink.LinkByName("lo")
		for _, v := range []ipVersion{4, 6} {
			p := namedNet(v)
			dst := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
			if err == nil {
				err = netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_LOCAL})
			}
		}
		if err == nil {
			packets, err = net.ListenPacket("udp", o.at(4, 53).String())
		}
		if err == nil {
			stream, err = net.Listen("tcp", o.at(4, 53).String())
		}
		return err
	})
	if err != nil {
		t.Fatal("serve names outside:", err)
	}
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		var i int
		if _, err := fmt.Sscanf(q.Question[0].Name, "n%d.", &i); err != nil {
			a.Rcode = dns.RcodeNameError
		} else {
			for v, kind := range map[ipVersion]string{4: "A", 6: "AAAA"} {
				rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", q.Question[0].Name, ttl.Load(), kind, named(v, i)))
				if err == nil && rr.Header().Rrtype == q.Question[0].Qtype {
					a.Answer = append(a.Answer, rr)
				}
			}
		}
		_ = w.WriteMsg(a)
	})
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: answer}, {Listener: stream, Handler: answer}} {
		go func() { _ = s.ActivateAndServe() }()
		t.Cleanup(func() { _ = s.Shutdown() })
	}
}

// asker is a workload that asks the outside's name server.
type asker struct {
	c *dns.Conn
}

func (o *outside) asker(t *testing.T, w *workload) *asker {
	t.Helper()
	c, err := w.connect(context.Background(), unix.SOCK_DGRAM, netip.AddrPort{}, o.at(4, 53))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &asker{&dns.Conn{Conn: c}}
}

// ask says what the answer is: its code, and the first address.
func (a *asker) ask(name string, v ipVersion) (int, netip.Addr, error) {
	qtype := dns.TypeA
	if v == 6 {
		qtype = dns.TypeAAAA
	}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	_ = a.c.SetDeadline(time.Now().Add(patience))
	if err := a.c.WriteMsg(q); err != nil {
		return 0, netip.Addr{}, err
	}
	for {
		r, err := a.c.ReadMsg()
		if err != nil {
			return 0, netip.Addr{}, err
		}
		if r.Id != q.Id {
			continue
		}
		for _, rr := range r.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				ip, _ := netip.AddrFromSlice(rr.A.To4())
				return r.Rcode, ip, nil
			case *dns.AAAA:
				ip, _ := netip.AddrFromSlice(rr.AAAA)
				return r.Rcode, ip, nil
			}
		}
		return r.Rcode, netip.Addr{}, nil
	}
}

func (a *asker) mustAsk(t *testing.T, name string, v ipVersion) netip.Addr {
	t.Helper()
	code, ip, err := a.ask(name, v)
	if err != nil || code != dns.RcodeSuccess || !ip.IsValid() {
		t.Fatalf("%s: %s %s, %v", name, dns.RcodeToString[code], ip, err)
	}
	return ip
}

// namePolicy lets an app ask for every name, and go where the given rules say.
func namePolicy(name, app string, rules ...string) string {
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {matchLabels: {app: %s}}
  egress:
  - toCIDR: [%s/32]
    toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*"}]}}]
%s`, name, app, farAddr(4), strings.Join(rules, "\n"))
}

func toNames(ports string, names ...string) string {
	var list []string
	for _, n := range names {
		kind := "matchName"
		if strings.Contains(n, "*") {
			kind = "matchPattern"
		}
		list = append(list, fmt.Sprintf("{%s: %q}", kind, n))
	}
	return fmt.Sprintf("  - toFQDNs: [%s]\n%s", strings.Join(list, ", "), ports)
}

const port80 = `    toPorts: [{ports: [{port: "80", protocol: TCP}]}]`

// TestFQDN has workloads go where names lead, under policies that change, and keep what
// they have while agent and proxy come and go.
func TestFQDN(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--fqdn-min-ttl", "1s", "--fqdn-grace", "1s")
	o := n.uplink(t)
	var ttl atomic.Uint32
	ttl.Store(300)
	o.serveNames(t, &ttl)
	o.serveWeb(t, 80)
	o.serveWeb(t, 81)
	client, other := n.workload(t, "client", "app=client"), n.workload(t, "other", "app=client")
	basic := namePolicy("p", "client", toNames(port80, "*.example.com"))
	n.apply(t, basic)
	a := o.asker(t, client)

	eachVersion(t, func(t *testing.T, v ipVersion) {
		ip := named(v, 1)
		client.mustNotConnect(t, netip.AddrPortFrom(ip, 80))
		if got := a.mustAsk(t, "n1.example.com", v); got != ip {
			t.Fatalf("n1 is %s, want %s", got, ip)
		}
		client.mustAsk(t, netip.AddrPortFrom(ip, 80), "GET", "/", 200)
		client.mustNotConnect(t, netip.AddrPortFrom(ip, 81))
		other.mustNotConnect(t, netip.AddrPortFrom(ip, 80)) // it never asked
		a.mustAsk(t, "n2.example.org", v)
		client.mustNotConnect(t, netip.AddrPortFrom(named(v, 2), 80))
	})
	t.Run("seen", func(t *testing.T) { fqdnIsListed(t, n) })
	t.Run("curl", func(t *testing.T) {
		curl := needProgram(t, "curl")
		got := a.mustAsk(t, "n3.example.com", 4)
		var out []byte
		cmd := exec.Command(curl, "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", "n3.example.com:80:"+got.String(), "http://n3.example.com/")
		err := client.do(func() (err error) { out, err = cmd.CombinedOutput(); return err })
		if err != nil || string(out) != "200" {
			t.Errorf("curl: %v: %s", err, out)
		}
	})
	t.Run("a prefix that is denied binds named addresses", func(t *testing.T) {
		deny := strings.Replace(basic, "  egress:", "  egressDeny:\n  - toCIDR: ["+named(4, 0).String()+"/24]\n  egress:", 1)
		s := client.mustOpen(t, netip.AddrPortFrom(named(4, 1), 80))
		n.apply(t, deny)
		client.mustNotConnect(t, netip.AddrPortFrom(named(4, 1), 80))
		s.staysSilent(t)
		ip := a.mustAsk(t, "n300.example.com", 4)
		client.mustAsk(t, netip.AddrPortFrom(ip, 80), "GET", "/", 200)
		n.apply(t, basic)
		client.mustAsk(t, netip.AddrPortFrom(named(4, 1), 80), "GET", "/", 200)
	})
	t.Run("a rule that comes later", func(t *testing.T) {
		client.mustNotConnect(t, netip.AddrPortFrom(named(4, 2), 80))
		n.apply(t, namePolicy("p", "client", toNames(port80, "*.example.com"), toNames(port80, "n2.example.org")))
		client.mustAsk(t, netip.AddrPortFrom(named(4, 2), 80), "GET", "/", 200)
		s := client.mustOpen(t, netip.AddrPortFrom(named(4, 2), 80))
		s.mustAsk(t, "GET", "/", 200)
		n.apply(t, basic)
		client.mustNotConnect(t, netip.AddrPortFrom(named(4, 2), 80))
		s.staysSilent(t)
	})
	t.Run("rules for requests", func(t *testing.T) { fqdnRequests(t, n, a, client) })
	n.apply(t, basic)
	t.Run("the agent is killed", func(t *testing.T) {
		n.killAgent()
		ip := a.mustAsk(t, "n4.example.com", 4)
		client.mustAsk(t, netip.AddrPortFrom(ip, 80), "GET", "/", 200)
		n.startAgent(t)
		client.mustAsk(t, netip.AddrPortFrom(ip, 80), "GET", "/", 200)
	})
	t.Run("both are killed", func(t *testing.T) {
		ip := a.mustAsk(t, "n5.example.com", 4)
		time.Sleep(time.Second) // what is learnt is on disk a moment later
		pid := n.proxyPID(t)
		n.killAgent()
		kill(t, pid)
		n.startAgent(t)
		client.mustAsk(t, netip.AddrPortFrom(ip, 80), "GET", "/", 200)
		client.mustAsk(t, netip.AddrPortFrom(o.asker(t, client).mustAsk(t, "n6.example.com", 4), 80), "GET", "/", 200)
	})
	t.Run("in use", func(t *testing.T) {
		ttl.Store(1)
		ip := o.asker(t, client).mustAsk(t, "n7.example.com", 4)
		s := client.mustOpen(t, netip.AddrPortFrom(ip, 80))
		s.mustAsk(t, "GET", "/", 200)
		eventually(t, patience, "its answer has run out", func() error {
			for _, e := range learnt(t, n) {
				if e.Name == "n7.example.com" && e.Source == "connection" {
					return nil
				}
			}
			return errors.New("it has not")
		})
		time.Sleep(3 * time.Second)
		n.apply(t, namePolicy("p", "client", toNames(port80, "*.example.com"), toNames(port80, "new.example.org"))) // all is judged again
		s.mustAsk(t, "GET", "/", 200)
		client.mustAsk(t, netip.AddrPortFrom(ip, 80), "GET", "/", 200)
		s.Close()
	})
}

type learntName struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	Endpoints []string `json:"endpoints"`
	Expires   string   `json:"expires"`
	Source    string   `json:"source"`
	Selectors []string `json:"selectors"`
}

func learnt(t *testing.T, n *node) (list []learntName) {
	t.Helper()
	if err := json.Unmarshal([]byte(n.headgate(t, "fqdn", "list", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func fqdnIsListed(t *testing.T, n *node) {
	i := slices.IndexFunc(learnt(t, n), func(e learntName) bool { return e.Name == "n1.example.com" })
	if i < 0 {
		t.Fatal("n1.example.com is not listed")
	}
	e := learnt(t, n)[i]
	if !slices.Contains(e.Addresses, named(4, 1).String()) || !slices.Contains(e.Addresses, named(6, 1).String()) ||
		!slices.Equal(e.Endpoints, []string{"default/client"}) || e.Source != "lookup" || !slices.Equal(e.Selectors, []string{"*.example.com"}) {
		t.Errorf("%+v", e)
	}
	if at, err := time.Parse(time.RFC3339, e.Expires); err != nil || time.Until(at) < time.Minute || time.Until(at) > 6*time.Minute {
		t.Errorf("expires %s, with a TTL of 300 s", e.Expires)
	}
	for _, args := range [][]string{{"fqdn", "selectors"}, {"bpf", "name", "list"}, {"bpf", "name-rules", "list"}, {"status"}} {
		want := map[string]string{"fqdn": "*.example.com", "bpf": "default/client", "status": "addresses"}[args[0]]
		if out := n.headgate(t, args...); !strings.Contains(out, want) {
			t.Errorf("headgate %s has no %q:\n%s", strings.Join(args, " "), want, out)
		}
	}
}

// fqdnRequests judges requests to names, also by a union of rules that only a name brings
// together.
func fqdnRequests(t *testing.T, n *node, a *asker, client *workload) {
	http := func(path string) string {
		return fmt.Sprintf(`    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{path: %q}]}}]`, path)
	}
	n.apply(t, namePolicy("p", "client", toNames(http("/a"), "*8.example.com"), toNames(http("/b"), "n*.example.com")))
	at := netip.AddrPortFrom(a.mustAsk(t, "n8.example.com", 4), 80)
	client.mustAsk(t, at, "GET", "/a", 200)
	client.mustAsk(t, at, "GET", "/b", 200)
	client.mustAsk(t, at, "GET", "/c", 403)
	at = netip.AddrPortFrom(a.mustAsk(t, "n9.example.com", 6), 80)
	_ = at
	at = netip.AddrPortFrom(a.mustAsk(t, "n9.example.com", 4), 80)
	client.mustAsk(t, at, "GET", "/b", 200)
	client.mustAsk(t, at, "GET", "/a", 403)
}
