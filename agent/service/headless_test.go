package service

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

func TestParsePort(t *testing.T) {
	for in, want := range map[string]string{
		"http=80": "http=80/TCP", "HTTP=80/tcp": "http=80/TCP", "dns=53/udp": "dns=53/UDP", "sql=pg/TCP": "sql=pg/TCP",
		"": "", "http": "", "=80": "", "http=": "", "http=0": "", "http=65536": "", "http=80/SCTP": "", "ht_tp=80": "",
	} {
		p, err := ParsePort(in)
		if (err != nil) != (want == "") || err == nil && p.String() != want {
			t.Errorf("port %q: %v, %v, want %q", in, p, err, want)
		}
	}
}

func ports(t *testing.T, all ...string) (out []Port) {
	t.Helper()
	for _, s := range all {
		p, err := ParsePort(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func TestValidateHeadless(t *testing.T) {
	for want, s := range map[string]Service{
		"": {Headless: true, Ports: ports(t, "http=80", "http=80/UDP", "sql=pg")},
		"no address of its own": {
			Headless: true, Addresses: []Address{address(t, "10.96.0.1:80/TCP")},
		},
		"no node port leads to it":    {Headless: true, NodePort: 30080},
		"clients choose":              {Headless: true, Affinity: time.Minute},
		"--port NAME=http":            {Headless: true, TargetPort: "http"},
		"http/TCP is named twice":     {Headless: true, Ports: ports(t, "http=80", "http=81")},
		"it has no address: name one": {},
		"port 81/TCP, which --port calls http": {
			Addresses: []Address{address(t, "10.96.0.1:80/TCP")}, Ports: ports(t, "http=81"),
		},
		"port 80/UDP": {Addresses: []Address{address(t, "10.96.0.1:80/TCP")}, Ports: ports(t, "http=80/UDP")},
	} {
		s.Name, s.Namespace = "web", "default"
		err := s.Validate(nil)
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// What names stand for: those behind a headless service, each by a name of its own.
func TestName(t *testing.T) {
	ip := netip.MustParseAddr
	v := View{Endpoints: []*endpoint.Endpoint{
		{Name: "a", Namespace: "shop", Labels: map[string]string{"app": "db"}, IPs: []netip.Addr{ip("10.210.0.2"), ip("fd00:210::2")},
			Ports: map[string]policy.NamedPort{"pg": {Proto: policy.ProtoTCP, Port: 5432}}},
		{Name: "b", Namespace: "shop", Labels: map[string]string{"app": "db"}, IPs: []netip.Addr{ip("10.210.0.3")}},
		{Name: "c", Namespace: "other", Labels: map[string]string{"app": "db"}, IPs: []netip.Addr{ip("10.210.0.4")}},
	}}
	s := []*Service{
		{Name: "db", Namespace: "shop", Headless: true, Selector: map[string]string{"app": "db"}, Ports: ports(t, "sql=pg", "http=80")},
		{Name: "far", Namespace: "shop", Headless: true, Backends: backends(t, "192.0.2.1:8443", "[2001:db8::1]:443", "other/c:9", "gone/x"), Ports: ports(t, "https=1")},
		{Name: "web", Namespace: "shop", Addresses: []Address{address(t, "10.96.0.1:80/TCP"), address(t, "[fd00:96::1]:80/TCP")}, Ports: ports(t, "http=80")},
		{Name: "none", Namespace: "shop", Headless: true, Selector: map[string]string{"app": "none"}},
	}
	z := redirect.Zone{Names: map[string][]netip.Addr{}, Groups: map[string][]netip.Addr{}, Places: map[string][]redirect.Place{}}
	Name(s, v, &z)
	want := redirect.Zone{
		Names: map[string][]netip.Addr{
			"a.db.shop.svc": {ip("10.210.0.2"), ip("fd00:210::2")}, "b.db.shop.svc": {ip("10.210.0.3")},
			"192-0-2-1.far.shop.svc": {ip("192.0.2.1")}, "2001-0db8-0000-0000-0000-0000-0000-0001.far.shop.svc": {ip("2001:db8::1")},
			"c.other.far.shop.svc": {ip("10.210.0.4")}, "web.shop.svc": {ip("10.96.0.1"), ip("fd00:96::1")},
		},
		Groups: map[string][]netip.Addr{
			"db.shop.svc": {ip("10.210.0.2"), ip("10.210.0.3"), ip("fd00:210::2")}, "none.shop.svc": nil,
			"far.shop.svc": {ip("10.210.0.4"), ip("192.0.2.1"), ip("2001:db8::1")},
		},
		Places: map[string][]redirect.Place{
			"_sql._tcp.db.shop.svc":  {{Target: "a.db.shop.svc", Port: 5432}},
			"_http._tcp.db.shop.svc": {{Target: "a.db.shop.svc", Port: 80}, {Target: "b.db.shop.svc", Port: 80}},
			"_https._tcp.far.shop.svc": {
				{Target: "192-0-2-1.far.shop.svc", Port: 8443}, {Target: "2001-0db8-0000-0000-0000-0000-0000-0001.far.shop.svc", Port: 443},
				{Target: "c.other.far.shop.svc", Port: 9},
			},
			"_http._tcp.web.shop.svc": {{Target: "web.shop.svc", Port: 80}},
		},
	}
	if !reflect.DeepEqual(z, want) {
		t.Errorf("got\n%+v, want\n%+v", z, want)
	}
	if w := Resolve(s, v); len(w.Fronts) != 2 || len(w.Addresses) != 2 {
		t.Errorf("the gate is told of %+v", w)
	}
	if got := ForPolicy(s[1:2], v); len(got) != 1 || !reflect.DeepEqual(got[0].Addresses, []netip.Addr{ip("192.0.2.1"), ip("2001:db8::1")}) {
		t.Errorf("rules about it are about %+v", got)
	}
	text, err := json.Marshal(s[0])
	var again Service
	if err != nil || json.Unmarshal(text, &again) != nil || !reflect.DeepEqual(&again, s[0]) {
		t.Errorf("remembered as %s: %+v, %v", text, again, err)
	}
}
