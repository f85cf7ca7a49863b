package main

import (
	"net/netip"

	"github.com/headgate/headgate/redirect"
)

// clusterDomain is below which the names of services and endpoints are.
const clusterDomain = "cluster.local"

// names is what --dns and --dns-upstream say; nil: off.
func (f *agentFlags) names() (*redirect.Zone, error) {
	switch f.dns {
	case "off":
		if len(f.dnsUpstreams) > 0 {
			return nil, usagef("--dns-upstream needs --dns on")
		}
		return nil, nil
	case "on":
	default:
		return nil, usagef("--dns %q: write on or off", f.dns)
	}
	z := &redirect.Zone{Domain: clusterDomain}
	switch {
	case len(f.dnsUpstreams) == 0:
		z.ResolvConf = "/etc/resolv.conf"
	case len(f.dnsUpstreams) == 1 && f.dnsUpstreams[0] == "off":
	default:
		for _, s := range f.dnsUpstreams {
			at, err := parseUpstream(s)
			if err != nil {
				return nil, err
			}
			z.Upstreams = append(z.Upstreams, at)
		}
	}
	return z, nil
}

func parseUpstream(s string) (netip.AddrPort, error) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return netip.AddrPortFrom(ip, 53), nil
	}
	at, err := netip.ParseAddrPort(s)
	if err != nil || at.Port() == 0 || at.Addr().Zone() != "" {
		return at, usagef("--dns-upstream %q is not IP or IP:PORT: write, for example, 192.0.2.53 or [2001:db8::53]:5353", s)
	}
	return at, nil
}
