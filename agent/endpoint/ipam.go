package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
)

// Pool hands out the addresses of one CIDR. The first address is the gateway's.
type Pool struct {
	prefix netip.Prefix
	next   netip.Addr // where the search goes on: an address is not used again at once
	used   map[netip.Addr]bool
}

// ErrNoAddress says that a pool is empty.
var ErrNoAddress = errors.New("no address is free")

// NewPool makes a pool of a CIDR with room for at least two endpoints.
func NewPool(prefix netip.Prefix) (*Pool, error) {
	prefix = prefix.Masked()
	if !prefix.IsValid() || prefix.Addr().BitLen()-prefix.Bits() < 2 {
		return nil, fmt.Errorf("endpoint CIDR %s is too small: take a /%d or larger", prefix, prefix.Addr().BitLen()-2)
	}
	p := &Pool{prefix: prefix, used: map[netip.Addr]bool{}}
	p.next = p.Gateway().Next()
	return p, nil
}

// Prefix is the CIDR.
func (p *Pool) Prefix() netip.Prefix { return p.prefix }

// Gateway is the address that the gate answers for.
func (p *Pool) Gateway() netip.Addr { return p.prefix.Addr().Next() }

// Contains reports whether an address is one that endpoints may have.
func (p *Pool) Contains(a netip.Addr) bool {
	return p.prefix.Contains(a) && a != p.prefix.Addr() && a != p.Gateway() &&
		(a.Is6() || p.prefix.Contains(a.Next())) // not IPv4's broadcast address
}

// Reserve takes a certain address; false: it is taken.
func (p *Pool) Reserve(a netip.Addr) bool {
	if p.used[a] {
		return false
	}
	p.used[a] = true
	return true
}

// Allocate takes the next free address.
func (p *Pool) Allocate() (netip.Addr, error) {
	start := p.next
	for a := start; ; {
		n := a.Next()
		if !p.Contains(n) {
			n = p.Gateway().Next()
		}
		if p.Contains(a) && p.Reserve(a) {
			p.next = n
			return a, nil
		}
		if a = n; a == start {
			return netip.Addr{}, fmt.Errorf("%w in %s: delete endpoints or give the agent another --endpoint-cidr", ErrNoAddress, p.prefix)
		}
	}
}

// Release gives an address back.
func (p *Pool) Release(a netip.Addr) { delete(p.used, a) }
