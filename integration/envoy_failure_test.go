package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
	"github.com/headgate/headgate/xds"
)

func (w *envoyWorld) directConnectionsAreClosed(t *testing.T) {
	w.t = t
	for _, addr := range []string{"127.0.0.1", "::1"} {
		at := netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(w.port))
		c := w.dialFrom(w.nodeNS, at)
		fmt.Fprintf(c, "POST /v1/request-landing HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		if answer, err := io.ReadAll(c); len(answer) > 0 {
			t.Errorf("a connection to %s itself was answered %q (%v), want none", at, answer, err)
		}
		c.Close()
	}
}

func (w *envoyWorld) refusedRuleIsLeftOut(t *testing.T) {
	w.t = t
	w.enforce(3, landing("POST"))
	c := w.dial(w.families()[0])
	defer c.Close()
	// Go's package regexp knows names of classes that Envoy's RE2 does not.
	err := w.tryEnforce(4, append(landing("POST"), policy.HTTPRule{Path: `/\p{Letter}+`}))
	var failed *redirect.SetsError
	if !errors.As(err, &failed) || !strings.Contains(failed.Failed[envoySet], "Letter") {
		t.Fatalf("Enforce gave %v, want Envoy's words about the expression", err)
	}
	if answer := c.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Errorf("after the refusal POST was answered %+v, want 200 as before", answer)
	}
	if answer := c.request("GET", "/abc"); answer.status != 403 {
		t.Errorf("after the refusal GET was answered %+v, want 403 as before", answer)
	}
	// The same in a set that no listener has yet: Envoy says so when it is served.
	other := redirect.NumberedSet{Number: envoySet + 1, Set: &policy.L7Set{
		ID: policy.SetID{8}, Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{{Path: `/\p{Letter}+`}},
	}}
	if err := w.tryEnforce(4, landing("POST"), other); err != nil {
		t.Fatal(err)
	}
	w.mustDo(w.nodeNS, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), envoyTimeout)
		defer cancel()
		_, err := w.backend.Serve(ctx, redirect.Route{Ingress: other.Set.ID})
		return err
	})
	err = w.tryEnforce(4, landing("POST"), other)
	if !errors.As(err, &failed) || !strings.Contains(failed.Failed[other.Number], "Letter") {
		t.Errorf("Enforce gave %v, want Envoy's words about the rule that it refused when it was served", err)
	}
	// Envoy's default would refuse an expression of this size.
	w.enforce(5, append(landing("POST"), policy.HTTPRule{Path: `/big/([0-9a-f]{2,40}-){3,9}`}))
	if answer := c.request("GET", "/big/00-11-22-"); answer.status != 200 {
		t.Errorf("GET by a large expression was answered %+v, want 200", answer)
	}
}

func (w *envoyWorld) forgottenSetsCloseTheirConnections(t *testing.T) {
	w.t = t
	w.enforce(6, landing("POST"))
	c := w.dial(w.families()[0])
	defer c.Close()
	if answer := c.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Fatalf("POST was answered %+v, want 200", answer)
	}
	before := w.requests.Load()
	w.mustDo(w.nodeNS, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), envoyTimeout)
		defer cancel()
		return w.backend.Enforce(ctx, redirect.Snapshot{Revision: 7})
	})
	if answer, err := c.try("POST", "/v1/request-landing"); err == nil && answer.status != 403 {
		t.Errorf("a connection of a set that is gone was answered %+v, want 403", answer)
	}
	c.SetReadDeadline(time.Now().Add(xds.DrainTime + patience))
	if _, err := io.Copy(io.Discard, c.reader); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection of a set that is gone stays open")
	}
	if n := w.requests.Load(); n != before {
		t.Errorf("%d requests reached the server by a set that is gone", n-before)
	}
	w.enforce(8, landing("POST"))
	w.route(w.serve())
	again := w.dial(w.families()[1])
	defer again.Close()
	if answer := again.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Errorf("POST by a set that is back was answered %+v, want 200", answer)
	}
}

func (w *envoyWorld) withoutEnvoyNothingPasses(t *testing.T) {
	w.t = t
	open := w.dial(w.families()[0])
	defer open.Close()
	if answer := open.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Fatalf("POST was answered %+v, want 200", answer)
	}
	accepted, requests := w.accepted.Load(), w.requests.Load()
	w.killEnvoy()
	if answer, err := open.try("POST", "/v1/request-landing"); err == nil {
		t.Errorf("without Envoy an open connection was answered %+v", answer)
	}
	for _, f := range w.families() {
		var c net.Conn
		err := w.clientNS.do(func() (err error) {
			c, err = envoyDialer(silence).Dial("tcp", netip.AddrPortFrom(f.server, envoyPort).String())
			return err
		})
		if err == nil {
			c.Close()
			t.Errorf("without Envoy a connection to %s was made", f.server)
		}
	}
	if a, r := w.accepted.Load(), w.requests.Load(); a != accepted || r != requests {
		t.Errorf("without Envoy %d connections and %d requests reached the server", a-accepted, r-requests)
	}
}
