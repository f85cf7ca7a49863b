package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// seen looks for what was asked among the flows.
func (r *resolving) seen(t *testing.T) {
	for _, want := range []string{
		"(DNS Query www.example.org. A)", `(DNS Answer "192.0.2.80" TTL: 60 (Proxy www.example.org. A))`,
		"(DNS Answer RCode: Non-Existent Domain TTL: 4294967295 (Proxy none.api.example.org. A))", "(DNS Query other.example.org. A)",
	} {
		eventually(t, patience, want, func() error {
			if out := r.headgate(t, "observe", "--protocol", "dns", "--last", "200"); !strings.Contains(out, want) {
				return fmt.Errorf("%s", out[max(0, len(out)-600):])
			}
			return nil
		})
	}
	for _, line := range strings.Split(r.headgate(t, "observe", "--protocol", "dns", "--last", "200"), "\n") {
		if strings.Contains(line, "other.example.org") && !strings.Contains(line, "DROPPED") {
			t.Errorf("refused, and shown as %s", line)
		}
	}
}

// cut asks for what is too long for a datagram: the client gets it by TCP.
func (r *resolving) cut(t *testing.T) {
	dig, kdig := needProgram(t, "dig"), needProgram(t, "kdig")
	eachVersion(t, func(t *testing.T, v ipVersion) {
		server := r.server.addr(v).String()
		for _, c := range [][]string{
			{dig, "@" + server, "+bufsize=4096", "+tries=3", "big.example.org", "TXT"}, {dig, "@" + server, "+noedns", "+tries=3", "big.example.org", "TXT"},
			{kdig, "@" + server, "+bufsize=4096", "big.example.org", "TXT"},
		} {
			out, err := r.client.output(c...)
			if err != nil || strings.Count(out, "xxxx\"") != 12 || !strings.Contains(out, "TCP") {
				t.Errorf("%s: %v\n%s", strings.Join(c, " "), err, out)
			}
		}
	})
}

// output runs a program on the workload.
func (n *namespace) output(command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	c, err := n.start(cmd)
	if err != nil {
		return "", err
	}
	<-c.done
	return out.String(), c.err
}

// lookUpC looks names up as programs in C do.
const lookUpC = `#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <arpa/inet.h>
int main(int n, char **a)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all, *i;
	char text[64];
	int err = getaddrinfo(a[1], "80", &hints, &all);

	if (err) {
		puts(gai_strerror(err));
		return 1;
	}
	for (i = all; i; i = i->ai_next) {
		getnameinfo(i->ai_addr, i->ai_addrlen, text, sizeof(text), 0, 0, NI_NUMERICHOST);
		puts(text);
	}
}
`

// programs resolve by the file, as everything does.
func (r *resolving) programs(t *testing.T) {
	dir, err := os.MkdirTemp(baseDir, "resolv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	source, binary, musl := filepath.Join(dir, "look.c"), filepath.Join(dir, "glibc"), filepath.Join(dir, "musl")
	if err := os.WriteFile(source, []byte(lookUpC), 0o600); err != nil {
		t.Fatal(err)
	}
	for compiler, to := range map[string]string{"gcc": binary, "musl-gcc": musl} {
		args := []string{"-o", to, source}
		if compiler == "musl-gcc" {
			args = append(args, "-static")
		}
		if out, err := exec.Command(needProgram(t, compiler), args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", compiler, err, out)
		}
	}
	r.server.serveWeb(t, 80)
	curl, getent := needProgram(t, "curl"), needProgram(t, "getent")
	web := allow("web", "client", "toEndpoints: [{matchLabels: {app: dns}}]", 80)
	r.apply(t, web)
	t.Cleanup(func() { r.withdraw(t, web) })
	eachVersion(t, func(t *testing.T, v ipVersion) {
		conf := filepath.Join(dir, "resolv.conf")
		if err := os.WriteFile(conf, fmt.Appendf(nil, "nameserver %s\noptions timeout:3 attempts:3\n", r.server.addr(v)), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			command string
			want    string // empty: it fails
		}{
			{binary + " www.example.org", "192.0.2.80"}, {musl + " www.example.org", "2001:db8::80"}, {getent + " ahosts www.example.org", "192.0.2.80"},
			{binary + " other.example.org", ""}, {musl + " other.example.org", ""}, {getent + " hosts other.example.org", ""},
			{curl + " -sS -m 10 -o /dev/null -w %{http_code} http://web.example.org/any", "200"},
		} {
			out, err := r.client.output("unshare", "--mount", "sh", "-c", "mount --bind "+conf+" /etc/resolv.conf && exec "+c.command)
			if (err == nil) != (c.want != "") || !strings.Contains(out, c.want) {
				t.Errorf("%s: %v: %s, want %q", c.command, err, out, c.want)
			}
		}
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			kind := unix.SOCK_DGRAM
			if strings.HasPrefix(network, "tcp") {
				kind = unix.SOCK_STREAM
			}
			return r.client.connect(ctx, kind, netip.AddrPort{}, r.server.at(v, 53))
		}}
		all, err := resolver.LookupHost(t.Context(), "www.example.org")
		slices.Sort(all)
		if err != nil || strings.Join(all, " ") != "192.0.2.80 2001:db8::80" {
			t.Errorf("Go: %v, %v", all, err)
		}
	})
}

// oneSocket has many questions under way between the same two ports, some of them refused,
// and one that is repeated.
func (r *resolving) oneSocket(t *testing.T) {
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			raw, err := r.client.connect(t.Context(), kind, netip.AddrPort{}, r.server.at(v, 53))
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			c := &dns.Conn{Conn: raw}
			want := map[uint16]int{}
			for i := range 200 {
				q := new(dns.Msg).SetQuestion([]string{"www.example.org.", "other.example.org."}[i%2], []uint16{dns.TypeA, dns.TypeAAAA}[i/2%2])
				q.Id = uint16(1000 + i)
				want[q.Id] = []int{dns.RcodeSuccess, dns.RcodeRefused}[i%2]
				if err := c.WriteMsg(q); err != nil {
					t.Fatal(err)
				}
			}
			_ = c.SetReadDeadline(time.Now().Add(patience))
			for len(want) > 0 {
				a, err := c.ReadMsg()
				if err != nil {
					t.Fatalf("%d answers are missing: %v", len(want), err)
				}
				if rcode, ok := want[a.Id]; !ok || rcode != a.Rcode {
					t.Fatalf("answer %d has code %d, want %d (%v)", a.Id, a.Rcode, rcode, ok)
				}
				delete(want, a.Id)
			}
		}
	})
}

var lostQueries = regexp.MustCompile(`Queries lost:\s+(\d+)`)

// withoutAgent has the agent die again and again while questions are asked. None is lost.
func (r *resolving) withoutAgent(t *testing.T) {
	r.loseNone(t, func() {
		r.killAgent()
		time.Sleep(time.Second)
		r.startAgent(t)
	})
}

// replaced has another proxy take the place of the one that carries questions. The old one
// gets the answers to what it asked.
func (r *resolving) replaced(t *testing.T) {
	before, pid := r.flags, r.proxyPID(t)
	r.loseNone(t, func() {
		r.killAgent()
		r.flags = append(slices.Clone(before), "--dns-deadline", fmt.Sprintf("%dms", 1000+time.Now().UnixNano()%1000)) // another setting: another proxy
		r.startAgent(t)
	})
	if now := r.proxyPID(t); now == pid {
		t.Errorf("the proxy is still process %d", now)
	}
}

// loseNone does something again and again while questions are asked.
func (r *resolving) loseNone(t *testing.T, f func()) {
	dnsperf := needProgram(t, "dnsperf")
	file := filepath.Join(r.dir, "questions")
	if err := os.WriteFile(file, []byte("www.example.org A\nwww.example.org AAAA\ndeep.api.example.org A\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out string
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, err = r.client.output(dnsperf, "-s", r.server.addr(4).String(), "-d", file, "-l", "8", "-Q", "1000", "-q", "50", "-c", "4")
	}()
	for {
		select {
		case <-done:
			lost := lostQueries.FindStringSubmatch(out)
			if err != nil || len(lost) != 2 || lost[1] != "0" || !strings.Contains(out, "NOERROR") || strings.Contains(out, "SERVFAIL") || strings.Contains(out, "REFUSED") {
				t.Errorf("dnsperf: %v\n%s", err, out)
			}
			return
		default:
			f()
		}
	}
}

// withoutProxy ends the proxy: nothing passes it, and the next one is there soon.
func (r *resolving) withoutProxy(t *testing.T) {
	pid := r.proxyPID(t)
	r.killAgent()
	kill(t, pid)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for _, name := range []string{"www.example.org.", "other.example.org."} {
			if a, err := ask(r.client.namespace, r.server.at(v, 53), "udp", name, dns.TypeA, refusalTime); !isTimeout(err) {
				t.Errorf("%s without a proxy: %v, %v", name, a, err)
			}
		}
	})
	r.startAgent(t)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		eventually(t, patience, "answers by the new proxy", func() error {
			_, err := ask(r.client.namespace, r.server.at(v, 53), "udp", "www.example.org.", dns.TypeA, time.Second)
			return err
		})
		judgedNames(t, r.client.namespace, r.server.at(v, 53), "udp")
	})
}
