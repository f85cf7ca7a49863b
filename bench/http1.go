package main

import (
	"net/netip"
	"time"
)

const httpRules = `      rules: {http: [{method: GET, path: "/public/.*"}]}
`

// httpSides are all that stand between the same client and the same server: the gate
// without and with policy, headgate's proxy, and its peers.
func (w *world) httpSides() ([]side, error) {
	g, err := w.newGated()
	if err != nil {
		return nil, err
	}
	client, _, err := g.endpoint("client")
	if err != nil {
		return nil, err
	}
	var sides []side
	for _, s := range []struct{ name, app, policy string }{
		{"no policy", "open", ""},
		{"L3/L4 rule", "l4", allow("l4", "80", "")},
		{"headgate", "l7", allow("l7", "80", httpRules)},
	} {
		n, addr, err := g.endpoint(s.app)
		if err == nil {
			err = w.serve(n, "80")
		}
		if err == nil && s.policy != "" {
			err = g.apply(s.policy)
		}
		if err != nil {
			return nil, err
		}
		sides = append(sides, side{name: s.name, client: client, to: netip.AddrPortFrom(addr, 80)})
	}
	sides[2].carrier, sides[2].recorded = "headgate", g.recorded
	if err := g.isolateProxy(); err != nil {
		return nil, err
	}
	r, err := w.newRouted()
	if err != nil {
		return nil, err
	}
	if err := w.serve(r.server, "80", "81"); err != nil {
		return nil, err
	}
	if err := w.startEnvoy(r); err != nil {
		return nil, err
	}
	if err := w.startNginx(r); err != nil {
		return nil, err
	}
	sides = append(sides,
		side{name: "Envoy", carrier: "envoy", client: r.client, to: netip.AddrPortFrom(r.address, 80)},
		side{name: "nginx", carrier: "nginx", client: r.client, to: netip.AddrPortFrom(r.gateway, nginxPort)})
	return sides, nil
}

// settled waits until all requests were recorded or lost, or nothing more comes.
func settled(recorded func() (uint64, uint64, error), want, lostBefore uint64) (requests, lost uint64, err error) {
	last, quiet := uint64(0), 0
	for quiet < 5 {
		if requests, lost, err = recorded(); err != nil || requests >= want {
			return requests, lost - lostBefore, err
		}
		if quiet++; requests+lost != last {
			last, quiet = requests+lost, 0
		}
		time.Sleep(50 * time.Millisecond)
	}
	return requests, lost - lostBefore, nil
}

func (w *world) http1() ([]table, error) {
	sides, err := w.httpSides()
	if err != nil {
		return nil, err
	}
	return w.measure(sides, []work{
		{"small requests, 64 connections", "requests", nil, loadOptions{Path: smallPath, Connections: 64, Seconds: w.seconds}},
		{"small requests, one connection", "requests", nil, loadOptions{Path: smallPath, Connections: 1, Seconds: w.seconds}},
		{"a connection for each request, 16 at once", "requests", nil, loadOptions{Path: smallPath, Connections: 16, Seconds: w.seconds, Reconnect: true}},
		{"bodies of 1 MB, 16 connections", "requests", nil, loadOptions{Path: largePath, Connections: 16, Seconds: w.seconds}},
	})
}
