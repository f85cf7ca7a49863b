package integration

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const nginxConfig = `user root;
worker_processes 1;
daemon off;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 256; }
http {
	log_format seen '$remote_addr $remote_port $request_method $request_uri $status $connection_requests';
	access_log %[1]s/access.log seen;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen 80;
		listen [::]:80;
		root %[1]s/www;
	}
}
`

// nginx is a server that was not written for these tests.
type nginx struct{ dir string }

func (w *workload) serveNginx(t *testing.T) *nginx {
	t.Helper()
	return w.serveNginxAs(t, nginxConfig, nil)
}

// serveNginxAs serves by a configuration, with files beside it.
func (w *workload) serveNginxAs(t *testing.T, config string, files map[string][]byte) *nginx {
	t.Helper()
	program := needProgram(t, "nginx", "/usr/sbin/nginx")
	dir, err := os.MkdirTemp(baseDir, "nginx")
	if err != nil {
		t.Fatal(err)
	}
	s := &nginx{dir}
	if err := os.Mkdir(filepath.Join(dir, "www"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.write(t, "nginx.conf", []byte(fmt.Sprintf(config, dir)))
	for name, data := range files {
		s.write(t, name, data)
	}
	cmd := exec.Command(program, "-c", filepath.Join(dir, "nginx.conf"), "-p", dir, "-e", filepath.Join(dir, "error.log"))
	p, err := w.start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.end(syscall.SIGTERM, patience)
		if text, err := os.ReadFile(filepath.Join(dir, "error.log")); t.Failed() && err == nil {
			t.Logf("nginx:\n%s", text)
		}
		os.RemoveAll(dir)
	})
	return s
}

func (s *nginx) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestNginx puts the gate between curl and nginx.
func TestNginx(t *testing.T) {
	t.Parallel()
	curl := needProgram(t, "curl")
	n := startNode(t)
	server := n.workload(t, "server", "app=server")
	client := n.workload(t, "client", "app=client")
	s := server.serveNginx(t)
	large := make([]byte, 10<<20)
	_, _ = io.ReadFull(newPattern(), large)
	s.write(t, "www/large", large)
	s.write(t, "www/small", []byte("small\n"))
	s.write(t, "www/secret", []byte("secret\n"))
	n.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{"GET|HEAD", "/large"}, httpRule{"GET", "/small"}))

	eachVersion(t, func(t *testing.T, v ipVersion) {
		url := "http://" + server.at(v, 80).String()
		run := func(args ...string) string {
			t.Helper()
			var out, errs bytes.Buffer
			cmd := exec.Command(curl, append([]string{"-q", "-sS", "--max-time", "120"}, args...)...)
			cmd.Stdout, cmd.Stderr = &out, &errs
			p, err := client.start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			if <-p.done; p.err != nil {
				t.Fatalf("curl %s: %v: %s", strings.Join(args, " "), p.err, errs.String())
			}
			return out.String()
		}
		eventually(t, patience, "nginx listens", func() error {
			if got := run("--retry", "20", "--retry-connrefused", "--retry-delay", "1", url+"/small"); got != "small\n" {
				return fmt.Errorf("got %q", got)
			}
			return nil
		})
		if got := run(url + "/large"); got != string(large) {
			t.Errorf("the large file came with %d bytes, or other ones", len(got))
		}
		// One connection for all: curl says so, and nginx counts.
		got := run("-w", "%{http_code} %{num_connects} %{local_port}\n", "-o", "/dev/null", url+"/small",
			"-o", "/dev/null", url+"/secret", "-I", "-o", "/dev/null", url+"/large")
		lines := strings.Fields(got)
		if len(lines) != 9 || lines[1] != "1" || lines[4] != "0" {
			t.Fatalf("curl says %q, want three requests on one connection", got)
		}
		s.checkLog(t, client.addr(v).String(), lines[2])
	})
}

// checkLog reads the access log: every request was allowed, and one came from
// this port.
func (s *nginx) checkLog(t *testing.T, address, port string) {
	t.Helper()
	eventually(t, patience, "nginx logged requests from "+address+" port "+port, func() error { // it does so after it has answered
		return s.logged(t, address, port)
	})
}

func (s *nginx) logged(t *testing.T, address, port string) error {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return fmt.Errorf("the last line is half written:\n%s", text)
	}
	found := false
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 6 || strings.Contains(f[3], "secret") {
			t.Fatalf("nginx saw %q", line)
		}
		if _, err := strconv.Atoi(f[1]); err != nil {
			t.Errorf("nginx saw %q", line)
		}
		found = found || f[0] == address && f[1] == port
	}
	if !found {
		return fmt.Errorf("only these were:\n%s", text)
	}
	return nil
}
