package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// http2 drives h2load: h2c by prior knowledge, 16 connections of 10 streams.
func (w *world) http2() ([]table, error) {
	g, err := w.newGated()
	if err != nil {
		return nil, err
	}
	client, _, err := g.endpoint("client")
	if err != nil {
		return nil, err
	}
	var sides []side
	for _, s := range []struct{ name, policy string }{
		{"no policy", ""},
		{"headgate", allow("l7", "82", httpRules)},
	} {
		app := "open"
		if s.policy != "" {
			app = "l7"
		}
		n, addr, err := g.endpoint(app)
		if err == nil {
			err = w.serveHTTP2(n)
		}
		if err == nil && s.policy != "" {
			err = g.apply(s.policy)
		}
		if err != nil {
			return nil, err
		}
		sides = append(sides, side{name: s.name, client: client, to: netip.AddrPortFrom(addr, 82)})
	}
	sides[1].carrier, sides[1].recorded = "headgate", g.recorded
	if err := g.isolateProxy(); err != nil {
		return nil, err
	}
	r, err := w.newRouted()
	if err == nil {
		err = w.serveHTTP2(r.server)
	}
	if err == nil {
		err = w.startEnvoy(r)
	}
	if err != nil {
		return nil, err
	}
	sides = append(sides, side{name: "Envoy", carrier: "envoy", client: r.client, to: netip.AddrPortFrom(r.address, 82)})
	time.Sleep(time.Second) // until all listen
	return w.measure(sides, []work{
		{"HTTP/2, 16 connections of 10 streams", "requests", nil, loadOptions{Path: smallPath, Connections: 16, Streams: 10, Seconds: w.seconds}},
	})
}

func (w *world) serveHTTP2(n *netns) error {
	file := filepath.Join(w.dir, "www", smallPath)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("serve HTTP/2: %w", err)
	}
	if err := os.WriteFile(file, []byte("hello"), 0o644); err != nil {
		return fmt.Errorf("serve HTTP/2: %w", err)
	}
	return w.start(n, "server", false, "", "nghttpd", "--no-tls", "-n", "1", "-d", filepath.Join(w.dir, "www"), "82")
}

// h2load's words.
var (
	h2Finished = regexp.MustCompile(`finished in ([0-9.]+)(us|ms|s),`)
	h2Requests = regexp.MustCompile(`requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored`)
	h2Status   = regexp.MustCompile(`status codes: (\d+) 2xx`)
	h2Times    = regexp.MustCompile(`time for request: +\S+ +(\S+?)(us|ms|s) +(\S+?)(us|ms|s) `)
)

// h2load does the work. It knows the mean of the times, and no quantiles.
func (w *world) h2load(s *side, do work) (x sample, err error) {
	out, err := w.run(s.client, "client", "", "h2load", "-c", strconv.Itoa(do.Connections), "-m", strconv.Itoa(do.Streams),
		"-t", "1", "-D", strconv.FormatFloat(max(do.Seconds, 1), 'f', 0, 64), "http://"+s.to.String()+do.Path)
	if err != nil {
		return x, err
	}
	text := string(out)
	requests, status := h2Requests.FindStringSubmatch(text), h2Status.FindStringSubmatch(text)
	if requests == nil || status == nil {
		return x, fmt.Errorf("read what h2load printed: %s", out)
	}
	x.Requests, _ = strconv.ParseUint(status[1], 10, 64)
	for _, n := range requests[2:] {
		failed, _ := strconv.ParseUint(n, 10, 64)
		x.Errors += failed
	}
	x.Seconds = max(do.Seconds, 1)
	if m := h2Finished.FindStringSubmatch(text); m != nil {
		x.Seconds = micro(m[1], m[2]) / 1e6
	}
	if m := h2Times.FindStringSubmatch(text); m != nil {
		x.Max, x.Mean = micro(m[1], m[2]), micro(m[3], m[4])
	}
	return x, nil
}

func micro(number, unit string) float64 {
	f, _ := strconv.ParseFloat(number, 64)
	switch unit {
	case "ms":
		return f * 1e3
	case "s":
		return f * 1e6
	}
	return f
}
