package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// hugeRecords of one name make an answer of 57 kB.
const hugeRecords = 250

// serveCoreDNS starts CoreDNS on a workload. It signs its zone while it answers.
func (w *workload) serveCoreDNS(t *testing.T) {
	t.Helper()
	coredns := needPart(t, "coredns-few/coredns")
	dir, err := os.MkdirTemp(baseDir, "coredns")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	key := &dns.DNSKEY{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 60}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(dir, fmt.Sprintf("Kexample.org.+013+%05d", key.KeyTag()))
	zone := "$ORIGIN example.org.\n@ 60 IN SOA ns hostmaster 1 60 60 60 60\n@ 60 IN NS ns\nns 60 IN A 192.0.2.53\n" +
		"www 60 IN A 192.0.2.80\nwww 60 IN AAAA 2001:db8::80\nother 60 IN A 192.0.2.81\nalias 60 IN CNAME deep.api\ndeep.api 60 IN CNAME www\n"
	for i := range hugeRecords {
		zone += fmt.Sprintf("huge 60 IN TXT \"%03d%s\"\n", i, strings.Repeat("x", 200))
	}
	for name, text := range map[string]string{
		base + ".key": key.String() + "\n", base + ".private": key.PrivateKeyString(private), filepath.Join(dir, "zone"): zone,
		filepath.Join(dir, "Corefile"): fmt.Sprintf(".:53 {\n\terrors\n\tdnssec example.org {\n\t\tkey file %s\n\t}\n\tfile %s example.org\n}\n", base, filepath.Join(dir, "zone")),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.daemon(t, filepath.Join(dir, "log"), coredns, "-conf", filepath.Join(dir, "Corefile"))
	eventually(t, patience, "CoreDNS answers", func() error {
		_, err := ask(w.namespace, w.at(4, 53), "udp", "www.example.org.", dns.TypeA, patience)
		return err
	})
}

// TestDNSServers has clients ask CoreDNS, and a workload where no name server is, on a node
// that says of what it denies that it does not exist.
func TestDNSServers(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--dns-denial", "nxdomain")
	r := &resolving{node: n, server: n.workload(t, "resolver", "app=dns"), client: n.workload(t, "client", "app=client")}
	closed := n.workload(t, "closed", "app=dns")
	r.server.serveCoreDNS(t)
	rules := dnsRules("client", "dns", allowedNames, `{matchName: alias.example.org}, {matchName: huge.example.org}`)
	n.apply(t, rules)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for _, network := range []string{"udp", "tcp"} {
			for name, want := range map[string]int{"www.example.org.": dns.RcodeSuccess, "none.api.example.org.": dns.RcodeNameError, "other.example.org.": dns.RcodeNameError} {
				a, err := ask(r.client.namespace, r.server.at(v, 53), network, name, dns.TypeA, patience)
				if err != nil || a.Rcode != want || len(a.Answer) != map[int]int{dns.RcodeSuccess: 1}[want] {
					t.Errorf("%s by %s: %v, %v", name, network, a, err)
				}
			}
		}
		t.Run("EDNS", func(t *testing.T) { r.signed(t, v) })
	})
	n.awaitFlow(t, "the question that was denied", []string{"--protocol", "dns", "--verdict", "DROPPED"}, func(f *flowpb.Flow) bool {
		return f.GetL7().GetDns().GetQuery() == "other.example.org."
	})
	n.awaitFlow(t, "the aliases", []string{"--protocol", "dns"}, func(f *flowpb.Flow) bool {
		d := f.GetL7().GetDns()
		return d.GetQuery() == "alias.example.org." && strings.Contains(strings.Join(d.GetCnames(), " "), "www.example.org") && strings.Join(d.GetIps(), "") == "192.0.2.80"
	})
	t.Run("Java", r.java)
	t.Run("nobody answers", func(t *testing.T) { r.isTold(t, closed) })
	t.Run("modes", func(t *testing.T) { r.dnsModes(t, rules) })
}

// signed asks for signatures, and for what goes by TCP only.
func (r *resolving) signed(t *testing.T, v ipVersion) {
	dig := needProgram(t, "dig")
	at := "@" + r.server.addr(v).String()
	for _, c := range []struct {
		args  []string
		count int
		of    string
	}{
		{[]string{"+dnssec", "alias.example.org"}, 4, "RRSIG"},
		{[]string{"+nodnssec", "alias.example.org"}, 0, "RRSIG"},
		{[]string{"huge.example.org", "TXT"}, hugeRecords, "xxxx\""},
		{[]string{"+dnssec", "+bufsize=4096", "huge.example.org", "TXT"}, hugeRecords, "xxxx\""},
		{[]string{"+noedns", "huge.example.org", "TXT"}, hugeRecords, "xxxx\""},
	} {
		out, err := r.client.output(append([]string{dig, at, "+tries=3"}, c.args...)...)
		if err != nil || strings.Count(out, c.of) != c.count || !strings.Contains(out, "NOERROR") {
			t.Errorf("dig %s: %v\n%s", strings.Join(c.args, " "), err, out[:min(len(out), 2000)])
		}
	}
}

// javaLookUp resolves by the system's resolver, and by Java's own.
const javaLookUp = `import java.net.InetAddress;
import java.util.Hashtable;
import javax.naming.directory.*;

public class LookUp {
	public static void main(String[] args) throws Exception {
		for (String name : new String[] {"www.example.org", "other.example.org"}) {
			try {
				for (InetAddress a : InetAddress.getAllByName(name))
					System.out.println("system " + name + " " + a.getHostAddress());
			} catch (java.net.UnknownHostException e) {
				System.out.println("system " + name + " unknown");
			}
		}
		for (String server : args) {
			Hashtable<String, String> env = new Hashtable<>();
			env.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
			env.put("java.naming.provider.url", "dns://" + server);
			env.put("com.sun.jndi.dns.timeout.initial", "3000");
			DirContext dns = new InitialDirContext(env);
			System.out.println(server + " A " + dns.getAttributes("www.example.org", new String[] {"A"}).get("A"));
			System.out.println(server + " TXT " + dns.getAttributes("huge.example.org", new String[] {"TXT"}).get("TXT").size());
			try {
				dns.getAttributes("other.example.org", new String[] {"A"});
				System.out.println(server + " other found");
			} catch (javax.naming.NameNotFoundException e) {
				System.out.println(server + " other not found");
			}
		}
	}
}
`

func (r *resolving) java(t *testing.T) {
	java := needProgram(t, "java")
	needProgram(t, "javac") // which runs what is source
	dir, err := os.MkdirTemp(baseDir, "java")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	source, conf := filepath.Join(dir, "LookUp.java"), filepath.Join(dir, "resolv.conf")
	for name, text := range map[string]string{source: javaLookUp, conf: fmt.Sprintf("nameserver %s\noptions timeout:5 attempts:3\n", r.server.addr(6))} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	v4, v6 := r.server.addr(4).String(), "["+r.server.addr(6).String()+"]"
	out, err := r.client.output("unshare", "--mount", "sh", "-c",
		"mount --bind "+conf+" /etc/resolv.conf && exec "+java+" -XX:TieredStopAtLevel=1 "+source+" "+v4+" '"+v6+"'")
	if err != nil {
		t.Errorf("java: %v", err)
	}
	for _, want := range []string{
		"system www.example.org 192.0.2.80", "system www.example.org 2001:db8:0:0:0:0:0:80", "system other.example.org unknown",
		v4 + " A A: 192.0.2.80", v6 + " A A: 192.0.2.80", fmt.Sprintf("%s TXT %d", v4, hugeRecords), fmt.Sprintf("%s TXT %d", v6, hugeRecords),
		v4 + " other not found", v6 + " other not found",
	} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("java does not say %q:\n%s", want, out)
		}
	}
}

// elsewhere lets the client ask the node, and another network.
const elsewhere = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: elsewhere}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEntities: [host, world]
    toPorts: [{ports: [{port: "53", protocol: UDP}], rules: {dns: [{matchPattern: "*"}]}}]
`

// isTold wants that who asks where nobody is learns it by ICMP, as without rules.
func (r *resolving) isTold(t *testing.T, closed *workload) {
	r.uplink(t)
	r.apply(t, elsewhere)
	defer r.withdraw(t, elsewhere)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for where, at := range map[string]netip.Addr{"a workload": closed.addr(v), "the node": gateway(v), "another network": farAddr(v)} {
			_, err := ask(r.client.namespace, netip.AddrPortFrom(at, 53), "udp", "www.example.org.", dns.TypeA, patience)
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s, where no name server is: %v, want that the connection is refused", where, err)
			}
		}
		// An error about what was not asked does not end what was.
		c, err := r.client.connect(t.Context(), unix.SOCK_DGRAM, netip.AddrPort{}, r.server.at(v, 53))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := converse(c, new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA), patience); err != nil {
			t.Errorf("another name server: %v", err)
		}
	})
}

// dnsModes has the rules audit, and then only observe.
func (r *resolving) dnsModes(t *testing.T, rules string) {
	in := func(mode string) string {
		return strings.Replace(rules, "metadata: {name: names}", "metadata: {name: names, annotations: {headgate.dev/mode: "+mode+"}}", 1)
	}
	for mode, verdict := range map[string]flowpb.Verdict{"audit": flowpb.Verdict_AUDIT, "observe": flowpb.Verdict_FORWARDED} {
		r.apply(t, in(mode))
		eachVersion(t, func(t *testing.T, v ipVersion) {
			for i, network := range []string{"udp", "tcp"} {
				name := fmt.Sprintf("%s%d%d.example.org.", mode, v, i)
				a, err := ask(r.client.namespace, r.server.at(v, 53), network, name, dns.TypeA, patience)
				if err != nil || a.Rcode != dns.RcodeNameError || len(a.Ns) == 0 { // which only the server says so
					t.Errorf("%s by %s: %v, %v", name, network, a, err)
				}
				r.awaitFlow(t, "the question", []string{"--protocol", "dns"}, func(f *flowpb.Flow) bool {
					return f.GetL7().GetDns().GetQuery() == name && f.GetL7().GetType() == flowpb.L7FlowType_REQUEST && f.GetVerdict() == verdict
				})
			}
		})
	}
	r.apply(t, rules)
	a, err := ask(r.client.namespace, r.server.at(4, 53), "udp", "audit40.example.org.", dns.TypeA, patience)
	if err != nil || a.Rcode != dns.RcodeNameError || len(a.Ns) > 0 {
		t.Errorf("enforced again: %v, %v", a, err)
	}
}
