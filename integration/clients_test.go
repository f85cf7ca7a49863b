package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// command runs a program in the namespace to its end and returns what it said.
func (n *namespace) command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := n.attempt(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// attempt is command for a program that may fail.
func (n *namespace) attempt(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	p, err := n.start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(10 * patience):
		t.Errorf("%s %s: it does not end", name, strings.Join(args, " "))
		p.end(syscall.SIGKILL, patience)
	}
	if p.err != nil {
		return "", fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), p.err, out.String(), errs.String())
	}
	return out.String(), nil
}

// script is the path of one of the clients and servers in testdata.
func script(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", "http", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// needPython is Debian's, which has the modules that parts.sh installs.
func needPython(t *testing.T, modules ...string) string {
	t.Helper()
	python := needProgram(t, "/usr/bin/python3")
	for _, m := range modules {
		if err := exec.Command(python, "-c", "import "+m).Run(); err != nil {
			missing(t, "this test drives Python's %s, which is not installed: 'make parts' installs it", m)
		}
	}
	return python
}

var publicHTTP = []httpRule{{"GET|HEAD|POST|PUT", "/public/.*"}}

// TestHTTPClients drives clients that were not written for these tests: what they
// make of HTTP/1 passes, and what is denied leaves their connections usable.
func TestHTTPClients(t *testing.T) {
	t.Parallel()
	eachBackend(t, httpClients)
}

func httpClients(t *testing.T, b backend) {
	python, node, curl := needPython(t, "requests"), needProgram(t, "node"), needProgram(t, "curl")
	n := startNode(t, b.flags...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	web := server.serveWeb(t, 80)
	n.apply(t, allow("rule", "server", fromApp("client"), 80, publicHTTP...))
	body := filepath.Join(n.dir, "body")
	if err := os.WriteFile(body, bytes.Repeat([]byte("0123456789abcdef"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	eachVersion(t, func(t *testing.T, v ipVersion) {
		host, base := server.addr(v).String(), "http://"+server.at(v, 80).String()
		t.Run("Python", func(t *testing.T) {
			client.command(t, python, script(t, "client.py"), host, "80")
		})
		t.Run("Node", func(t *testing.T) {
			client.command(t, node, script(t, "client.js"), host, "80")
		})
		for name, tt := range map[string]struct {
			args []string
			want string
		}{
			"continue":         {[]string{"-H", "Expect: 100-continue", "--data-binary", "@" + body, base + "/public/a"}, "/public/a \n200 1"},
			"continue, denied": {[]string{"-H", "Expect: 100-continue", "--data-binary", "@" + body, base + "/secret"}, deniedBody + "403 1"},
			"denied, long":     {[]string{"-H", "Expect:", "--data-binary", "@" + body, base + "/secret"}, deniedBody + "403 1"},
			"chunked":          {[]string{"-T", "-", "-H", "Expect:", base + "/public/b"}, "/public/b \n200 1"},
			"1.0":              {[]string{"--http1.0", base + "/public/c"}, "/public/c \n200 1"},
			"asks for h2c":     {[]string{"--http2", base + "/public/d", base + "/secret"}, "/public/d \n200 1" + deniedBody + "403 0"},
			"absolute":         {[]string{"-x", base, base + "/public/e"}, "/public/e \n200 1"},
			"many":             {[]string{base + "/public/[1-3]", base + "/secret"}, "/public/1 \n200 1/public/2 \n200 0/public/3 \n200 0" + deniedBody + "403 0"},
			"path as it is":    {[]string{"--path-as-is", base + "/public/../secret", base + "/x/..;/public/%66"}, deniedBody + "403 1/public/f \n200 0"},
		} {
			t.Run("curl "+name, func(t *testing.T) {
				args := append([]string{"-q", "-sS", "--max-time", "120", "-w", "%{http_code} %{num_connects}"}, tt.args...)
				if got := client.command(t, curl, args...); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		}
	})
	for _, r := range web.requests() {
		if !strings.HasPrefix(r.path, "/public/") {
			t.Errorf("the server saw %+v", r)
		}
	}
}

// TestWebSocket: judged as the request that opens it, carried, counted, and ended
// when policy forbids it.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	eachBackend(t, webSocket)
}

func webSocket(t *testing.T, b backend) {
	python := needPython(t, "websockets")
	n := startNode(t, b.flags...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	cmd := exec.Command(python, script(t, "websocket_server.py"), "80")
	cmd.Stderr = os.Stderr
	p, err := server.start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end(syscall.SIGTERM, patience) })
	n.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{"GET", "/chat"}))
	eventually(t, patience, "the server listens", func() error {
		c, err := server.dial(server.at(4, 80), refusalTime)
		if err == nil {
			c.Close()
		}
		return err
	})
	eachVersion(t, func(t *testing.T, v ipVersion) {
		base := "ws://" + server.at(v, 80).String()
		if got := client.command(t, python, script(t, "websocket_client.py"), base+"/other"); got != "status 403\n" {
			t.Errorf("denied: got %q", got)
		}
		cmd := exec.Command(python, script(t, "websocket_client.py"), base+"/chat")
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout = in
		c, err := client.start(cmd)
		in.Close()
		if err != nil {
			t.Fatal(err)
		}
		said := make([]byte, 3)
		if _, err := io.ReadFull(out, said); err != nil || string(said) != "ok\n" {
			t.Fatalf("the client says %q, %v", said, err)
		}
		if v == 6 { // the next agent knows of tunnels too
			n.killAgent()
			n.startAgent(t)
		}
		n.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{"GET", "/talk"}))
		if rest, err := io.ReadAll(out); err != nil || string(rest) != "closed\n" {
			t.Errorf("after the policy forbade it the client says %q, %v", rest, err)
		}
		<-c.done
		n.awaitFlow(t, "the end of a tunnel", []string{"--type", "l7"}, func(f *flowpb.Flow) bool {
			return f.GetIP().GetSource() == client.addr(v).String() && strings.Contains(f.GetSummary(), "tunnel ended: ") && strings.Contains(f.GetSummary(), "/chat")
		})
		n.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{"GET", "/chat"}))
	})
}

// forward is a proxy that clients know of: it answers CONNECT.
func forward(w http.ResponseWriter, r *http.Request) {
	to, err := net.Dial("tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer to.Close()
	c, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(to, in)
		_ = to.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, to)
}

// TestConnect: a tunnel through somebody else's proxy is judged by where it goes,
// and off unless a rule names it.
func TestConnect(t *testing.T) {
	t.Parallel()
	eachBackend(t, connectTunnels)
}

func connectTunnels(t *testing.T, b backend) {
	curl := needProgram(t, "curl")
	n := startNode(t, b.flags...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	l := server.listen(t, 3128)
	// What it dials is the test's own web server, outside of the node.
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: &webServer{}}
	proxy := &http.Server{Handler: http.HandlerFunc(forward)}
	go func() { _ = web.Serve(target) }()
	go func() { _ = proxy.Serve(l) }()
	t.Cleanup(func() { web.Close(); proxy.Close() })
	url := "http://" + target.Addr().String() + "/through"
	rule := func(http string) string {
		return allow("rule", "server", fromApp("client"), 3128) + "      rules:\n        http:\n        - " + http + "\n"
	}
	eachVersion(t, func(t *testing.T, v ipVersion) {
		ask := func() string {
			cmd := exec.Command(curl, "-q", "-s", "--max-time", "120", "-p", "-x", "http://"+server.at(v, 3128).String(), "-w", "%{http_connect}", url)
			var out bytes.Buffer
			cmd.Stdout = &out
			p, err := client.start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			<-p.done
			return out.String()
		}
		port := strconv.Itoa(target.Addr().(*net.TCPAddr).Port)
		for _, tt := range [][2]string{
			{`{}`, "403"},
			{`{method: ".*"}`, "403"},
			{`{method: CONNECT, host: "127.0.0.1:1"}`, "403"},
			{`{method: CONNECT, host: "127\\.0\\.0\\.1:` + port + `"}`, "/through \n200"},
		} {
			n.apply(t, rule(tt[0]))
			if got := ask(); got != tt[1] {
				t.Errorf("%s: got %q, want %q", tt[0], got, tt[1])
			}
		}
	})
}

// TestHTTPServers drives servers that were not written for these tests.
func TestHTTPServers(t *testing.T) {
	t.Parallel()
	eachBackend(t, httpServers)
}

func httpServers(t *testing.T, b backend) {
	python, node, curl := needPython(t, "http.server"), needProgram(t, "node"), needProgram(t, "curl")
	n := startNode(t, b.flags...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	files := filepath.Join(n.dir, "files")
	if err := os.MkdirAll(filepath.Join(files, "public"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "public", "file"), []byte("from a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	accessLog := filepath.Join(n.dir, "access")
	log, err := os.Create(accessLog)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	serve := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Stderr = log
		p, err := server.start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.end(syscall.SIGTERM, patience) })
	}
	serve(node, script(t, "server.js"), "80")
	serve(python, "-m", "http.server", "81", "--bind", "::", "--directory", files)
	serve(python, "-m", "http.server", "82", "--bind", "::", "--directory", files, "--protocol", "HTTP/1.1")
	for _, port := range []int{80, 81, 82} {
		n.apply(t, allow(fmt.Sprint("port-", port), "server", fromApp("client"), port, publicHTTP...))
		eventually(t, patience, "the server listens", func() error {
			c, err := server.dial(server.at(4, port), refusalTime)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	large := filepath.Join(n.dir, "large")
	if err := os.WriteFile(large, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	eachVersion(t, func(t *testing.T, v ipVersion) {
		// Python's does not read the content of a GET, and kept the connection for it.
		c := client.mustOpen(t, server.at(v, 82))
		_ = c.SetDeadline(time.Now().Add(patience))
		smuggled := "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
		fmt.Fprintf(c, "GET /public/file HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(smuggled), smuggled)
		if b.bound { // it keeps the client's connection, and takes another to the server
			fmt.Fprint(c, "GET /public/file HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		}
		answers, err := io.ReadAll(c)
		if err != nil || strings.Count(string(answers), "HTTP/1.1 200") != strings.Count(string(answers), "HTTP/1.1 ") || !strings.HasSuffix(string(answers), "from a file") {
			t.Errorf("content of a GET: got %q, %v", answers, err)
		}
		js, py := "http://"+server.at(v, 80).String()+"/public/", "http://"+server.at(v, 81).String()+"/public/"
		for name, tt := range map[string]struct {
			args []string
			want string
		}{
			"early hints":   {[]string{js + "hints", js + "x"}, "hinted 200 1|GET /public/x 200 0|"},
			"trailers":      {[]string{"--raw", "-o", "/dev/null", js + "trailers", js + "x"}, " 200 1|GET /public/x 200 0|"},
			"HEAD":          {[]string{"-I", "-o", "/dev/null", js + "x", "-o", "/dev/null", js + "y"}, " 200 1| 200 0|"},
			"no content":    {[]string{js + "none", js + "same", js + "x"}, " 204 1| 304 0|GET /public/x 200 0|"},
			"until close":   {[]string{"-o", "/dev/null", js + "until-close", js + "x"}, " 200 1|GET /public/x 200 1|"},
			"early answer":  {[]string{"-H", "Expect:", "-T", large, js + "early"}, "too large 413 1|"},
			"1.0 server":    {[]string{py + "file", py + "file"}, "from a file 200 1|from a file 200 1|"},
			"1.0, denied":   {[]string{py + "file", strings.TrimSuffix(py, "public/") + "secret"}, "from a file 200 1|Access denied\r\n 403 1|"},
			"range of file": {[]string{"-r", "0-3", py + "none"}, "404"},
		} {
			t.Run(name, func(t *testing.T) {
				args := append([]string{"-q", "-sS", "--max-time", "120", "-w", " %{http_code} %{num_connects}|"}, tt.args...)
				if b.bound { // a server that ends its connection does not end the client's
					tt.want = strings.NewReplacer("x 200 1|", "x 200 0|", "|from a file 200 1|", "|from a file 200 0|", " 403 1|", " 403 0|").Replace(tt.want)
				}
				got := client.command(t, curl, args...)
				if b.bound && name == "early answer" && strings.Contains(got, "503") {
					return // it saw the server's reset before the server's answer
				}
				if got != tt.want && (tt.want != "404" || !strings.Contains(got, " 404 ")) {
					t.Errorf("got %.300q, want %q", got, tt.want)
				}
			})
		}
	})
	if text, err := os.ReadFile(accessLog); err != nil || strings.Contains(string(text), "smuggled") || !strings.Contains(string(text), "/public/file") {
		t.Errorf("the servers saw, %v:\n%s", err, text)
	}
}
