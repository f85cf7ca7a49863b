package names

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
)

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, s := range texts {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

func equal(t *testing.T, what string, got []netip.Addr, want ...string) {
	t.Helper()
	if !slices.Equal(got, addrs(want...)) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func fqdn(t *testing.T, name, pattern string) policy.FQDN {
	t.Helper()
	f, err := policy.NewFQDN(name, pattern)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestTable(t *testing.T) {
	now := time.Unix(1000, 0)
	var table Table
	learn := func(name string, ttl int, ips ...string) []netip.Addr {
		return table.Learn(Answer{Name: name, Addresses: addrs(ips...), Expires: now.Add(time.Duration(ttl) * time.Second), Asker: "default/a"})
	}
	equal(t, "first", learn("API.example.com.", 10, "192.0.2.7", "::ffff:192.0.2.8"), "192.0.2.7", "192.0.2.8")
	equal(t, "again", learn("api.example.com", 30, "192.0.2.7"))
	equal(t, "another name", learn("www.example.org", 60, "192.0.2.7"), "192.0.2.7")
	equal(t, "no name", learn("a b", 60, "192.0.2.9"))

	if got := table.Names(addrs("192.0.2.7")[0]); !slices.Equal(got, []string{"api.example.com", "www.example.org"}) {
		t.Error(got)
	}
	equal(t, "by name", table.Select(fqdn(t, "Api.example.com", "")), "192.0.2.7", "192.0.2.8")
	equal(t, "by pattern", table.Select(fqdn(t, "", "*.example.org")), "192.0.2.7")
	equal(t, "by star", table.Select(fqdn(t, "", "*")), "192.0.2.7", "192.0.2.8")
	equal(t, "of nothing", table.Select(policy.FQDN{}))

	busy := addrs("192.0.2.8")[0]
	equal(t, "in use", table.Expire(now.Add(20*time.Second), func(a netip.Addr) bool { return a == busy }))
	equal(t, "run out", table.Expire(now.Add(20*time.Second), nil), "192.0.2.8")
	equal(t, "run out by one name", table.Expire(now.Add(40*time.Second), nil), "192.0.2.7")
	equal(t, "left", table.Addresses(), "192.0.2.7")
	if got := table.Entries(); len(got) != 1 || got[0].Name != "www.example.org" || !slices.Equal(got[0].Askers, []string{"default/a"}) {
		t.Error(got)
	}
	prefix, labels := table.Identity(addrs("192.0.2.7")[0])
	if prefix.String() != "192.0.2.7/32" || !labels.Has(policy.SourceFQDN, "www.example.org") || !labels.Has(policy.SourceReserved, "world") {
		t.Error(prefix, labels)
	}
}

func TestOneNameDoesNotFillTheTable(t *testing.T) {
	var table Table
	for i := range MaxAddresses + 10 {
		a := netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1))
		table.Learn(Answer{Name: "a.example", Addresses: []netip.Addr{a}, Expires: time.Unix(int64(i), 0)})
	}
	left := table.Addresses()
	if len(left) != MaxAddresses || left[0].String() != "2001:db8::b" {
		t.Error(len(left), left[0])
	}
}
