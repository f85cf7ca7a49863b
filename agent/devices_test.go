package agent

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/headgate/headgate/bpf"
)

func addrs(list ...string) []nodeAddr {
	var out []nodeAddr
	for _, s := range list {
		second := s[0] == '-'
		if second {
			s = s[1:]
		}
		out = append(out, nodeAddr{netip.MustParseAddr(s), second})
	}
	return out
}

func TestChooseDevices(t *testing.T) {
	ip := netip.MustParseAddr
	lo := nodeLink{index: 1, name: "lo", kind: "loopback", up: true}
	eth := nodeLink{index: 2, name: "eth0", kind: "ether", up: true, addrs: addrs("192.0.2.2", "2001:db8::2")}
	served := bpf.Device{Ifindex: 2, V4: ip("192.0.2.2"), V6: ip("2001:db8::2")}
	with := func(l nodeLink, f func(*nodeLink)) nodeLink { f(&l); return l }
	for name, c := range map[string]struct {
		links []nodeLink
		names []string
		want  []bpf.Device
		err   bool
	}{
		"up with addresses":           {[]nodeLink{lo, eth}, nil, []bpf.Device{served}, false},
		"down":                        {[]nodeLink{with(eth, func(l *nodeLink) { l.up = false })}, nil, nil, false},
		"no address":                  {[]nodeLink{with(eth, func(l *nodeLink) { l.addrs = nil })}, nil, nil, false},
		"no address any more":         {[]nodeLink{with(eth, func(l *nodeLink) { l.addrs, l.known = nil, true })}, nil, []bpf.Device{{Ifindex: 2}}, false},
		"down now":                    {[]nodeLink{with(eth, func(l *nodeLink) { l.up, l.known = false, true })}, nil, []bpf.Device{served}, false},
		"an endpoint's":               {[]nodeLink{with(eth, func(l *nodeLink) { l.attached = true })}, nil, nil, false},
		"the host device":             {[]nodeLink{with(eth, func(l *nodeLink) { l.name = "hg_host" }), with(eth, func(l *nodeLink) { l.name = "hg_host_peer" })}, nil, nil, false},
		"no Ethernet":                 {[]nodeLink{with(eth, func(l *nodeLink) { l.kind = "none" })}, nil, nil, false},
		"named":                       {[]nodeLink{eth, with(eth, func(l *nodeLink) { l.index, l.name = 3, "eth1" })}, []string{"eth0"}, []bpf.Device{served}, false},
		"named, down":                 {[]nodeLink{with(eth, func(l *nodeLink) { l.up = false })}, []string{"eth0"}, []bpf.Device{served}, false},
		"named, not there":            {[]nodeLink{eth}, []string{"eth0", "eth9"}, []bpf.Device{served}, true},
		"named, no Ethernet":          {[]nodeLink{with(eth, func(l *nodeLink) { l.kind = "none" })}, []string{"eth0"}, nil, true},
		"named, headgate's own":       {[]nodeLink{with(eth, func(l *nodeLink) { l.attached = true })}, []string{"eth0"}, nil, true},
		"named once, left out later":  {[]nodeLink{with(eth, func(l *nodeLink) { l.known = true })}, []string{"eth1"}, nil, true},
		"first of several":            {[]nodeLink{with(eth, func(l *nodeLink) { l.addrs = addrs("-192.0.2.9", "192.0.2.2", "192.0.2.3", "-2001:db8::9") })}, nil, []bpf.Device{{Ifindex: 2, V4: ip("192.0.2.2"), V6: ip("2001:db8::9")}}, false},
		"the loopback's, unnumbered":  {[]nodeLink{with(lo, func(l *nodeLink) { l.addrs = addrs("198.51.100.1") }), with(eth, func(l *nodeLink) { l.addrs = addrs("2001:db8::2") })}, nil, []bpf.Device{{Ifindex: 2, V4: ip("198.51.100.1"), V6: ip("2001:db8::2")}}, false},
		"a name that begins as ours'": {[]nodeLink{with(eth, func(l *nodeLink) { l.name = "hgx0" })}, nil, []bpf.Device{served}, false},
	} {
		got, err := chooseDevices(c.links, c.names)
		if !reflect.DeepEqual(got, c.want) || (err != nil) != c.err {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}
