package integration

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/http"
	"github.com/headgate/headgate/policy"
)

const plainEnvoy = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: plain
          codec_type: HTTP1
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: REJECT_REQUEST
          http_protocol_options: {accept_http_10: true, enable_trailers: true}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: upstream}}]}]
  clusters:
  - name: upstream
    type: STATIC
    load_assignment:
      cluster_name: upstream
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`

// startPlainEnvoy starts stock Envoy before a server that answers with the target
// and the host that it was asked for, both in a namespace of their own, where ports
// are nobody else's.
func startPlainEnvoy(t *testing.T) *envoyAsker {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "this test makes a network namespace: run it as root")
	}
	binary := envoyBinary(t)
	const admin, listen, target = 9901, 8000, 8001
	ns := newNamespace(t)
	upstream := ns.listen(t, target)
	t.Cleanup(func() { upstream.Close() })
	go serveTargets(upstream)
	dir := t.TempDir()
	config := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, plainEnvoy, admin, listen, target), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning")
	cmd.Stdout, cmd.Stderr = log, log
	p, err := ns.start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.end(syscall.SIGKILL, patience)
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("envoy:\n%s", text)
		}
	})
	at := netip.AddrPortFrom(loopback(4), listen)
	eventually(t, patience, "Envoy listens", func() error {
		c, err := ns.dial(at, patience)
		if err == nil {
			c.Close()
		}
		return err
	})
	return &envoyAsker{ns: ns, at: at}
}

// serveTargets answers each request with its own target and host.
func serveTargets(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			in := bufio.NewReader(c)
			target, host := "", ""
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				line = strings.TrimRight(line, "\r\n")
				switch name, value, field := strings.Cut(line, ": "); {
				case target == "":
					if _, target, _ = strings.Cut(line, " "); strings.Contains(target, " ") {
						target, _, _ = strings.Cut(target, " ")
					}
				case field && strings.EqualFold(name, "host"):
					host = value
				case line == "":
					body := target + " " + host
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
					target, host = "", ""
				}
			}
		}()
	}
}

// envoyForwards asks Envoy and returns what the server was asked for, or the
// status of a refusal.
type envoyAsker struct {
	ns *namespace
	at netip.AddrPort
	c  net.Conn
	in *bufio.Reader
}

func (e *envoyAsker) forwards(t *testing.T, request string) string {
	t.Helper()
	for range 2 { // an open connection may just have been closed
		if e.c == nil {
			c, err := e.ns.dial(e.at, patience)
			if err != nil {
				t.Fatal(err)
			}
			e.c, e.in = c, bufio.NewReader(c)
		}
		_ = e.c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(e.c, request)
		status, body, closed, err := readAnswer(e.in)
		if err != nil || closed {
			e.c.Close()
			e.c = nil
		}
		switch {
		case err != nil:
			continue
		case status == 200:
			return body
		}
		return fmt.Sprint(status)
	}
	return "closed"
}

func readAnswer(in *bufio.Reader) (status int, body string, closed bool, err error) {
	length := 0
	for first := true; ; first = false {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, "", true, err
		}
		line = strings.ToLower(strings.TrimRight(line, "\r\n"))
		switch {
		case first:
			_, _ = fmt.Sscanf(line, "http/1.1 %d", &status)
		case strings.HasPrefix(line, "content-length: "):
			_, _ = fmt.Sscanf(line, "content-length: %d", &length)
		case line == "connection: close":
			closed = true
		case line == "":
			b := make([]byte, length)
			_, err := io.ReadFull(in, b)
			return status, string(b), closed, err
		}
	}
}

// seenHTTP is what headgate's own parser makes of a request.
type seenHTTP struct{ judged, refused string }

func (s *seenHTTP) Request(_ uint64, r policy.Request) policy.Decision {
	h := r.(*policy.HTTPRequest)
	s.judged = string(h.Path) + " " + string(h.Host)
	return policy.Decision{Verdict: policy.Allow}
}
func (s *seenHTTP) Response(uint64, parsers.Answer) {}
func (s *seenHTTP) Malformed(_ uint64, _ parsers.Side, err error) bool {
	s.refused = err.Error()
	return false
}

func ownParser(t *testing.T, request string) seenHTTP {
	t.Helper()
	var s seenHTTP
	session := http.New(&s, http.Limits{})
	if _, err := session.Feed(parsers.Client, []byte(request), false); err != nil && s.refused == "" {
		t.Fatal(err)
	}
	return s
}

// TestPathsAsEnvoy: paths have the normal form of stock Envoy, but for what is
// listed in docs/http.md.
func TestPathsAsEnvoy(t *testing.T) {
	t.Parallel()
	envoy := startPlainEnvoy(t)
	pieces := []string{
		"/", "/", "/", "//", ".", "..", "...", "a", "b", "Z", "0", "-", "_", "~", "%2e", "%2E", "%41", "%7e", "%5f", "%20", "%3b", "%3B", "%3f", "%23", "%25",
		";x", ";", "=", "\\", "%zz", "%", "%4", "\"", "<", ">", "{", "}", "|", "^", "`", "[", "]", "+", "&", "$", "!", "*", "'", "(", ",", ":", "@", "%2f", "%5c", "%00", "?a=//%2e", "/../", "/./", "/..;/",
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dots := 0
	for range 4000 {
		path := "/"
		for range r.IntN(9) {
			path += pieces[r.IntN(len(pieces))]
		}
		request := "GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n"
		theirs, own := envoy.forwards(t, request), ownParser(t, request)
		switch {
		case own.judged == theirs, own.refused != "" && (theirs == "400" || theirs == "closed"):
		case own.refused == http.ErrEscapedDots.Error() && strings.Contains(path, ";"):
			dots++
		case own.refused == http.ErrEscapedSlash.Error() && strings.Contains(path, ";"): // in a dot segment that goes
		case strings.HasPrefix(theirs, "//") && own.judged == theirs[1:]: // nothing is left of the path but slashes
		case strings.Contains(path, `\.`) && strings.Contains(path, ";") && strings.Contains(theirs, "/."): // Envoy leaves dot segments there
		default:
			t.Errorf("%q: envoy forwards %q, ours %+v", path, theirs, own)
		}
	}
	if dots == 0 {
		t.Error("no path had escaped dots with parameters: the pieces do not reach far")
	}
}

// TestStricterThanEnvoy: what docs/http.md lists is refused here, and forwarded by
// Envoy.
func TestStricterThanEnvoy(t *testing.T) {
	t.Parallel()
	envoy := startPlainEnvoy(t)
	for request, reason := range map[string]*http.Refusal{
		"GET /p HTTP/1.1\nHost: h\n\n":                                    http.ErrLineEnd,
		"GET /p HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n":                http.ErrFolded,
		"GET /p HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n":                   http.ErrFieldValue,
		"\r\n\r\nGET /p HTTP/1.1\r\nHost: h\r\n\r\n":                      http.ErrEmptyLines,
		"GET  /p HTTP/1.1\r\nHost: h\r\n\r\n":                             http.ErrRequestLine,
		"GET\t/p HTTP/1.1\r\nHost: h\r\n\r\n":                             http.ErrMethod,
		"GET /p HTTP/1.1 \r\nHost: h\r\n\r\n":                             http.ErrRequestLine,
		"GET /p HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n":                   http.ErrHostRepeated,
		"GET /p HTTP/1.1\r\nHost:\r\n\r\n":                                http.ErrHost,
		"GET /p HTTP/1.1\r\nHost: u@h\r\n\r\n":                            http.ErrHost,
		"GET /p HTTP/1.1\r\nHost: h:\r\n\r\n":                             http.ErrHost,
		"GET http://other/p HTTP/1.1\r\nHost: h\r\n\r\n":                  http.ErrAuthority,
		"GET http://H/p HTTP/1.1\r\nHost: h\r\n\r\n":                      http.ErrAuthority,
		"GET https://h/p HTTP/1.1\r\nHost: h\r\n\r\n":                     http.ErrTarget,
		"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 00\r\n\r\n":       http.ErrLength,
		"POST /p HTTP/1.1\r\nHost: h\r\nContent_Length: 5\r\n\r\n":        http.ErrUnderscore,
		"GET /p HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n":                 http.ErrExpect,
		"GET /p HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nConnection: X-A\r\n\r\n": http.ErrOption,
		"GET /a/%2e%2e;x/b HTTP/1.1\r\nHost: h\r\n\r\n":                   http.ErrEscapedDots,
		"GET /%u002e%u002e/b HTTP/1.1\r\nHost: h\r\n\r\n":                 http.ErrWideEscape,
		"GET /%c0%ae%c0%ae/b HTTP/1.1\r\nHost: h\r\n\r\n":                 http.ErrOverlong,
		"GET /a/..;%00/b HTTP/1.1\r\nHost: h\r\n\r\n":                     http.ErrEscapedSlash,
	} {
		if own := ownParser(t, request); own.refused != reason.Error() {
			t.Errorf("%q: ours %+v, want %v", request, own, reason)
		}
		if got := envoy.forwards(t, request); !strings.HasPrefix(got, "/") {
			t.Errorf("%q: Envoy does not forward it but says %s: take it off the list", request, got)
		}
	}
	for path, want := range map[string][2]string{ // Envoy's form, and ours
		"//":         {"//", "/"},
		`/a\..;x/b`:  {"/a/..;x/b", "/b"},
		`/a/b\.;/c`:  {"/a/b/.;/c", "/a/b/c"},
		"/..;/%41/.": {"/A/", "/A/"},
	} {
		request := "GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n"
		got := [2]string{strings.TrimSuffix(envoy.forwards(t, request), " h"), strings.TrimSuffix(ownParser(t, request).judged, " h")}
		if got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}
