package proxy

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/headgate/headgate/redirect"
)

// A zone reaches the proxy as it was.
func TestZoneOverTheWire(t *testing.T) {
	ip := netip.MustParseAddr
	z := &redirect.Zone{
		Domain: "cluster.local", Names: map[string][]netip.Addr{"a.db.shop.svc": {ip("10.210.0.5"), ip("fd00:210::5")}},
		Groups: map[string][]netip.Addr{"db.shop.svc": {ip("10.210.0.5")}, "none.shop.svc": nil},
		Places: map[string][]redirect.Place{"_sql._tcp.db.shop.svc": {{Target: "a.db.shop.svc", Port: 65535}}},
		Listen: []netip.Addr{ip("10.210.0.1")}, Clients: []netip.Prefix{netip.MustParsePrefix("10.210.0.0/16")},
		Upstreams: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}, ResolvConf: "/etc/resolv.conf",
	}
	got, err := zoneFromProto(zoneToProto(z))
	if err != nil || !reflect.DeepEqual(got, z) {
		t.Errorf("%+v, %v, want %+v", got, err, z)
	}
}
