package integration

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestLargeBodies sends much up and down through the proxy, which must neither
// change a byte nor keep them.
func TestLargeBodies(t *testing.T) {
	const size = 100 << 20
	n := startNode(t)
	server := n.workload(t, "server", "app=server")
	client := n.workload(t, "client", "app=client")
	server.serveWeb(t, 80)
	n.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{"GET", "/down[?].*"}, httpRule{"POST", "/up"}))
	sum := patternSum(size)
	proxy := n.proxyPID(t)
	before := memory(t, proxy, "VmRSS")
	eachVersion(t, func(t *testing.T, v ipVersion) {
		t.Run("up", func(t *testing.T) {
			s := client.mustOpen(t, server.at(v, 80))
			_ = s.SetDeadline(time.Now().Add(time.Minute))
			fmt.Fprintf(s, "POST /up HTTP/1.1\r\nHost: server\r\nContent-Length: %d\r\n\r\n", size)
			if _, err := io.CopyN(s, newPattern(), size); err != nil {
				t.Fatal(err)
			}
			r, err := http.ReadResponse(s.read, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Header.Get("X-Sum"); r.StatusCode != 200 || got != sum {
				t.Errorf("status %d, checksum %s at the server, want %s", r.StatusCode, got, sum)
			}
		})
		t.Run("down", func(t *testing.T) {
			s := client.mustOpen(t, server.at(v, 80))
			_ = s.SetDeadline(time.Now().Add(time.Minute))
			fmt.Fprintf(s, "GET /down?bytes=%d HTTP/1.1\r\nHost: server\r\n\r\n", size)
			r, err := http.ReadResponse(s.read, nil)
			if err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			got, err := io.Copy(h, r.Body)
			if err != nil || r.StatusCode != 200 || got != size || hex.EncodeToString(h.Sum(nil)) != sum {
				t.Errorf("status %d, %d bytes with checksum %x, %v", r.StatusCode, got, h.Sum(nil), err)
			}
		})
	})
	const most = 100 << 10 // kB
	if grown := memory(t, proxy, "VmHWM") - before; grown > most {
		t.Errorf("the proxy grew by %d kB", grown)
	}
	if now := n.proxyPID(t); now != proxy {
		t.Errorf("the proxy is %d now, and was %d", now, proxy)
	}
}

// memory reads a line of /proc/PID/status, in kB.
func memory(t *testing.T, pid int, name string) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			kB, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return kB
		}
	}
	t.Fatalf("process %d has no %s", pid, name)
	return 0
}

// TestManyConnections has them all open at once. None is lost, and none gets the
// answer of another.
func TestManyConnections(t *testing.T) { eachBackend(t, manyConnections) }

func manyConnections(t *testing.T, b backend) {
	const connections, requests = 1000, 10
	n := startNode(t, b.flags...)
	server := n.workload(t, "server", "app=server")
	var clients []*workload
	for i := range 4 {
		clients = append(clients, n.workload(t, fmt.Sprintf("client-%d", i), "app=client"))
	}
	web := server.serveWeb(t, 80)
	n.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{"GET", "/token/.*"}))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		web.forget()
		var wg, open sync.WaitGroup
		var failures atomic.Int64
		fail := func(format string, args ...any) {
			if failures.Add(1) <= 10 {
				t.Errorf(format, args...)
			}
		}
		open.Add(connections)
		for i := range connections {
			wg.Go(func() {
				s, err := clients[i%len(clients)].open(server.at(v, 80), time.Minute)
				open.Done()
				if err != nil {
					fail("connection %d: %v", i, err)
					return
				}
				defer s.Close()
				open.Wait()
				for j := range requests {
					token := fmt.Sprintf("%s-%d-%d", v, i, j)
					_ = s.SetDeadline(time.Now().Add(time.Minute))
					r, err := s.ask("GET", "/token/"+token, token)
					if err != nil {
						fail("request %s: %v", token, err)
						return
					}
					from, want := r.header.Get("X-From"), "/token/"+token+" "+token+"\n"
					if r.status != 200 || r.body != want || !b.same(from, endOf(s.LocalAddr())) {
						fail("request %s from %s: status %d, %q, seen from %s", token, s.LocalAddr(), r.status, r.body, from)
						return
					}
				}
			})
		}
		wg.Wait()
		if n := failures.Load(); n > 0 {
			t.Errorf("%d of %d connections failed", n, connections)
		}
		if seen := len(web.requests()); !t.Failed() && seen != connections*requests {
			t.Errorf("the server saw %d requests, want %d", seen, connections*requests)
		}
	})
}
