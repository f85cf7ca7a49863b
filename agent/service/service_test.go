package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
)

func address(t *testing.T, s string) Address {
	t.Helper()
	a, err := ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func backends(t *testing.T, all ...string) (out []Backend) {
	t.Helper()
	for _, s := range all {
		b, err := ParseBackend(s, "default")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"10.96.0.1:80": "10.96.0.1:80/TCP", "10.96.0.1:53/udp": "10.96.0.1:53/UDP", "[fd00::1]:80/TCP": "[fd00::1]:80/TCP",
		"10.96.0.1": "", "10.96.0.1:0": "", "10.96.0.1:80/SCTP": "", "[::ffff:10.0.0.1]:80": "", "[fe80::1%eth0]:80": "", "web:80": "", "": "",
	} {
		if got, err := ParseAddress(in); (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("address %q: %v, %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1:80", "[2001:db8::1]:80": "[2001:db8::1]:80", "web": "ns/web", "web:80": "ns/web:80",
		"web:http": "ns/web:http", "other/web:http": "other/web:http", "192.0.2.1": "", "2001:db8::1": "", "192.0.2.1:0": "",
		"Web": "", "web:": "", "web:0": "", "a/b/c": "", "web:UPPER_CASE": "",
	} {
		if got, err := ParseBackend(in, "ns"); (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("backend %q: %v, %v, want %q", in, got, err, want)
		}
	}
}

// TestStored: what is remembered is what was asked for.
func TestStored(t *testing.T) {
	s := &Service{
		Name: "web", Namespace: "shop", Labels: map[string]string{"tier": "front"}, Addresses: []Address{address(t, "[fd00:96::1]:80/UDP")},
		Backends: backends(t, "web:http", "192.0.2.1:80", "other/x"), TargetPort: "http", NodePort: 30080, Affinity: time.Minute,
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got Service
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(&got, s) {
		t.Errorf("%v\n%+v\n%s", err, got, text)
	}
	if c := s.Clone(); !reflect.DeepEqual(c, s) {
		t.Errorf("clone %+v", c)
	}
}

func TestValidate(t *testing.T) {
	pools := []netip.Prefix{netip.MustParsePrefix("10.210.0.0/16")}
	for what, c := range map[string]struct {
		change func(*Service)
		want   string
	}{
		"good":          {func(*Service) {}, ""},
		"on gateway":    {func(s *Service) { s.Addresses[0] = address(t, "10.210.0.1:80") }, ""},
		"name":          {func(s *Service) { s.Name = "a.b" }, "one label"},
		"namespace":     {func(s *Service) { s.Namespace = "a.b" }, "not a namespace"},
		"no address":    {func(s *Service) { s.Addresses = nil }, "--vip"},
		"twice":         {func(s *Service) { s.Addresses = append(s.Addresses, s.Addresses[0]) }, "given twice"},
		"loopback":      {func(s *Service) { s.Addresses[0] = address(t, "127.0.0.1:80") }, "no address that a service"},
		"multicast":     {func(s *Service) { s.Addresses[0] = address(t, "224.0.0.1:80") }, "no address that a service"},
		"endpoint's":    {func(s *Service) { s.Addresses[0] = address(t, "10.210.0.2:80") }, "endpoint's address"},
		"both":          {func(s *Service) { s.Selector = map[string]string{"a": "b"} }, "backends and a selector"},
		"port":          {func(s *Service) { s.TargetPort = "-" }, "target port"},
		"affinity":      {func(s *Service) { s.Affinity = time.Millisecond }, "affinity lasts"},
		"backend twice": {func(s *Service) { s.Backends = append(s.Backends, s.Backends[0]) }, "given twice"},
		"node port": {func(s *Service) {
			s.NodePort, s.Addresses = 30080, append(s.Addresses, address(t, "10.96.0.1:443"))
		}, "make two services"},
	} {
		s := &Service{Name: "web", Namespace: "default", Addresses: []Address{address(t, "10.96.0.1:80")}, Backends: backends(t, "web")}
		c.change(s)
		err := s.Validate(pools)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

// TestMaglev measures what the paper promises: an even share, and little disruption
// when a backend goes or comes.
func TestMaglev(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 50} {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("10.210.0.%d:80", i+2))
		}
		table := Table(names, bpf.ServiceSlots)
		share := map[int]int{}
		for _, b := range table {
			share[b]++
		}
		least, most := slices.Min(slices.Collect(maps.Values(share))), slices.Max(slices.Collect(maps.Values(share)))
		if len(table) != bpf.ServiceSlots || len(share) != n || most-least > 1+bpf.ServiceSlots/100 {
			t.Errorf("%d backends: %d slots, shares from %d to %d", n, len(table), least, most)
		}
		shuffled := slices.Clone(names)
		slices.Reverse(shuffled)
		for i, b := range Table(shuffled, bpf.ServiceSlots) {
			if shuffled[b] != names[table[i]] {
				t.Fatalf("%d backends: slot %d depends on the order", n, i)
			}
		}
		if n < 2 {
			continue
		}
		moved := 0
		left := names[1:]
		for i, b := range Table(left, bpf.ServiceSlots) {
			if was := names[table[i]]; was != names[0] && left[b] != was {
				moved++
			}
		}
		kept := bpf.ServiceSlots - share[0]
		t.Logf("%d backends: shares %d to %d of %d; one removed: %d of the others' %d slots changed hands (%.1f%%)",
			n, least, most, bpf.ServiceSlots, moved, kept, 100*float64(moved)/float64(kept))
		if moved > kept/10 {
			t.Errorf("%d backends: %d of %d slots changed hands for nothing", n, moved, kept)
		}
	}
	if Table(nil, 7) != nil {
		t.Error("a table of nobody")
	}
}

func world() View {
	ip := netip.MustParseAddr
	return View{
		Node: []netip.Addr{ip("192.0.2.1"), ip("fe80::1")},
		Endpoints: []*endpoint.Endpoint{
			{
				Name: "a", Namespace: "default", Labels: map[string]string{"app": "web", "v": "1"}, IPs: []netip.Addr{ip("10.210.0.2"), ip("fd00:210::2")},
				Ports: map[string]policy.NamedPort{"http": {Proto: policy.ProtoTCP, Port: 8080}},
			},
			{Name: "b", Namespace: "default", Labels: map[string]string{"app": "web"}, IPs: []netip.Addr{ip("10.210.0.3")}},
			{Name: "c", Namespace: "other", Labels: map[string]string{"app": "web"}, IPs: []netip.Addr{ip("10.210.0.4")}},
		},
	}
}

func TestResolve(t *testing.T) {
	for what, c := range map[string]struct {
		service Service
		usable  func(netip.Addr) bool
		want    map[string]string
	}{
		"labels": {service: Service{Selector: map[string]string{"app": "web"}}, want: map[string]string{
			"10.96.0.1:80/TCP": "[10.210.0.2:80 10.210.0.3:80]", "[fd00:96::1]:80/TCP": "[[fd00:210::2]:80]", "10.96.0.1:80/UDP": "[10.210.0.2:80 10.210.0.3:80]",
		}},
		"more labels": {service: Service{Selector: map[string]string{"app": "web", "v": "1"}, TargetPort: "81"}, want: map[string]string{
			"10.96.0.1:80/TCP": "[10.210.0.2:81]", "[fd00:96::1]:80/TCP": "[[fd00:210::2]:81]", "10.96.0.1:80/UDP": "[10.210.0.2:81]",
		}},
		"a named port is of one protocol, and not everybody's": {service: Service{Selector: map[string]string{"app": "web"}, TargetPort: "http"}, want: map[string]string{
			"10.96.0.1:80/TCP": "[10.210.0.2:8080]", "[fd00:96::1]:80/TCP": "[[fd00:210::2]:8080]", "10.96.0.1:80/UDP": "[]",
		}},
		"named": {service: Service{Backends: backends(t, "a:http", "b:82", "other/c", "gone", "192.0.2.9:83")}, want: map[string]string{
			"10.96.0.1:80/TCP": "[10.210.0.2:8080 10.210.0.3:82 10.210.0.4:80 192.0.2.9:83]", "[fd00:96::1]:80/TCP": "[[fd00:210::2]:8080]",
			"10.96.0.1:80/UDP": "[10.210.0.3:82 10.210.0.4:80 192.0.2.9:83]",
		}},
		"some are not ready": {service: Service{Backends: backends(t, "a", "b", "192.0.2.9:83")}, usable: func(a netip.Addr) bool { return a.String() == "10.210.0.3" }, want: map[string]string{
			"10.96.0.1:80/TCP": "[10.210.0.3:80 192.0.2.9:83]", "[fd00:96::1]:80/TCP": "[]", "10.96.0.1:80/UDP": "[10.210.0.3:80 192.0.2.9:83]",
		}},
		"node port": {service: Service{Backends: backends(t, "a"), NodePort: 30080}, want: map[string]string{
			"10.96.0.1:80/TCP": "[10.210.0.2:80]", "[fd00:96::1]:80/TCP": "[[fd00:210::2]:80]", "10.96.0.1:80/UDP": "[10.210.0.2:80]",
			"192.0.2.1:30080/TCP": "[10.210.0.2:80]", "192.0.2.1:30080/UDP": "[10.210.0.2:80]",
			"127.0.0.1:30080/TCP": "[10.210.0.2:80]", "127.0.0.1:30080/UDP": "[10.210.0.2:80]",
			"[::1]:30080/TCP": "[[fd00:210::2]:80]", "[::1]:30080/UDP": "[[fd00:210::2]:80]",
		}},
	} {
		v := world()
		v.Usable = c.usable
		c.service.Name, c.service.Namespace = "web", "default"
		for _, a := range []string{"10.96.0.1:80/TCP", "[fd00:96::1]:80/TCP", "10.96.0.1:80/UDP"} {
			c.service.Addresses = append(c.service.Addresses, address(t, a))
		}
		w := Resolve([]*Service{&c.service}, v)
		got := map[string]string{}
		for a, f := range w.Fronts {
			got[a.String()] = fmt.Sprint(f.Backends)
			if f.HostOnly != a.Addr().IsLoopback() {
				t.Errorf("%s: %s is for the host only: %v", what, a, f.HostOnly)
			}
			if whole := w.Addresses[a.Addr()]; whole != strings.Contains(a.String(), "96") {
				t.Errorf("%s: all of %s is the service's: %v", what, a.Addr(), whole)
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n%v, want\n%v", what, got, c.want)
		}
	}
}

func TestForPolicy(t *testing.T) {
	a := []Address{address(t, "10.96.0.1:80")}
	got := ForPolicy([]*Service{
		{Name: "chosen", Namespace: "default", Addresses: a, Selector: map[string]string{"app": "web"}, Labels: map[string]string{"x": "y"}},
		{Name: "named", Namespace: "default", Addresses: a, Backends: backends(t, "a", "192.0.2.9:80")},
	}, world())
	want := []policy.Service{
		{Name: "chosen", Namespace: "default", Selector: map[string]string{"app": "web"}, Labels: map[string]string{"x": "y"}},
		{Name: "named", Namespace: "default", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9")}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want\n%+v", got, want)
	}
}
