package xds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/redirect"
)

// portAttempts is how often another port is tried when one is taken meanwhile.
const portAttempts = 8

// freePort finds a TCP port that is free on both loopback addresses. It must run
// in Envoy's network namespace.
func freePort(ctx context.Context) (redirect.ProxyPort, error) {
	var last error
	for range portAttempts {
		a, err := listen(ctx, "tcp4", loopback4, 0)
		if err != nil {
			return 0, err
		}
		port := a.Addr().(*net.TCPAddr).AddrPort().Port()
		b, err := listen(ctx, "tcp6", loopback6, port)
		a.Close()
		if err == nil {
			b.Close()
			return redirect.ProxyPort(port), nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return 0, err
		}
		last = err
	}
	return 0, fmt.Errorf("find a port for Envoy: %w", last)
}

func listen(ctx context.Context, network, addr string, port uint16) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, network, netip.AddrPortFrom(netip.MustParseAddr(addr), port).String())
	if err != nil {
		return nil, fmt.Errorf("find a port for Envoy: %w", err)
	}
	return l, nil
}

// taken reports that Envoy could not bind.
func taken(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && strings.Contains(refused.Message, "Address already in use")
}

// listening waits until Envoy's workers accept at the port: they begin a moment
// after the listener was acknowledged. It must run in Envoy's network namespace.
func listening(ctx context.Context, port redirect.ProxyPort) error {
	for _, addr := range []string{loopback4, loopback6} {
		at := netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port)).String()
		for {
			var d net.Dialer
			d.SetMultipathTCP(false)
			c, err := d.DialContext(ctx, "tcp", at)
			if err == nil {
				c.Close()
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for Envoy to listen on %s: %w", at, errors.Join(context.Cause(ctx), err))
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	return nil
}
