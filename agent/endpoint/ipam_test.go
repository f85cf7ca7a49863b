package endpoint

import (
	"errors"
	"net/netip"
	"testing"
)

func TestPool(t *testing.T) {
	p, err := NewPool(netip.MustParsePrefix("10.1.0.0/29"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]bool{}
	for range 5 { // 8, less network, gateway and broadcast
		a, err := p.Allocate()
		if err != nil {
			t.Fatal(err)
		}
		if seen[a] || a == p.Gateway() || !p.Contains(a) {
			t.Errorf("allocated %s", a)
		}
		seen[a] = true
	}
	if _, err := p.Allocate(); !errors.Is(err, ErrNoAddress) {
		t.Errorf("a full pool gave an address, or another error: %v", err)
	}
	free := netip.MustParseAddr("10.1.0.4")
	p.Release(free)
	if a, err := p.Allocate(); err != nil || a != free {
		t.Errorf("after %s was released got %s, %v", free, a, err)
	}
	if p.Reserve(free) {
		t.Error("a taken address could be reserved")
	}
}

func TestPoolDoesNotReuseAtOnce(t *testing.T) {
	p, err := NewPool(netip.MustParsePrefix("fd00::/64"))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := p.Allocate()
	p.Release(first)
	if second, _ := p.Allocate(); second == first {
		t.Error("an address went from one endpoint to the next at once: old connections would find it")
	}
}

func TestPoolTooSmall(t *testing.T) {
	for _, cidr := range []string{"10.0.0.0/31", "10.0.0.1/32", "fd00::/127"} {
		if _, err := NewPool(netip.MustParsePrefix(cidr)); err == nil {
			t.Errorf("%s makes a pool", cidr)
		}
	}
}

func TestParsePorts(t *testing.T) {
	for spec, ok := range map[string]bool{
		"http=80/TCP": true, "http=80": true, "dns=53/udp": true,
		"80/TCP": false, "http=0/TCP": false, "http=70000/TCP": false, "http=80/ICMP": false, "=80/TCP": false,
	} {
		if _, err := ParsePorts([]string{spec}); (err == nil) != ok {
			t.Errorf("%q: %v", spec, err)
		}
	}
	ports, _ := ParsePorts([]string{"http=80/TCP", "dns=53/UDP"})
	if got := FormatPorts(ports); len(got) != 2 || got[0] != "dns=53/UDP" || got[1] != "http=80/TCP" {
		t.Errorf("formatted as %q", got)
	}
}
