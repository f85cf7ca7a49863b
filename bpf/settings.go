package bpf

import (
	"fmt"

	"github.com/headgate/headgate/policy"
)

// HostFirewall says what host policies do.
type HostFirewall uint8

// The host firewall is off until somebody asks for it: who errs in it is locked out.
const (
	HostOff     HostFirewall = 0
	HostAudit   HostFirewall = 1 // what they deny is reported, and passes
	HostEnforce HostFirewall = 2
)

func (h HostFirewall) String() string { return [...]string{"off", "audit", "enforce"}[h%3] }

// Settings of the gate that may change while it works.
type Settings struct {
	Reset       bool   // a connection that policy ends is reset, not left to hang
	Share       uint32 // established connections that one workload, this machine, or what passes it may have; 0: any number
	Host        HostFirewall
	HostSubject uint32 // the table that host policies made; 0: none
}

const (
	configReset       = 1
	configHostAudit   = 2
	configHostEnforce = 4
)

// SetSettings changes them. What is open is judged by them from the next revision on.
func (g *Gate) SetSettings(s Settings) error {
	return g.configure(func(c *gateConfig) {
		c.Flags, c.Share, c.HostSubject, c.Room = 0, s.Share, s.HostSubject, g.objs.HgCtTcp1.MaxEntries()
		if s.Reset {
			c.Flags |= configReset
		}
		switch s.Host {
		case HostAudit:
			c.Flags |= configHostAudit
		case HostEnforce:
			c.Flags |= configHostEnforce
		}
	})
}

// Settings are those in force, and the policy revision.
func (g *Gate) Settings() (Settings, uint32, error) {
	var c gateConfig
	if err := g.objs.HgConfig1.Lookup(uint32(0), &c); err != nil {
		return Settings{}, 0, fmt.Errorf("read the datapath's configuration: %w", err)
	}
	s := Settings{Reset: c.Flags&configReset != 0, Share: c.Share, HostSubject: c.HostSubject}
	switch {
	case c.Flags&configHostEnforce != 0:
		s.Host = HostEnforce
	case c.Flags&configHostAudit != 0:
		s.Host = HostAudit
	}
	return s, c.Revision, nil
}

// Revision is the policy revision that connections are judged under.
func (g *Gate) Revision() (uint32, error) {
	_, r, err := g.Settings()
	return r, err
}

// SetRevision makes the gate judge every connection again, at its next packet. Call
// it when the tables are written.
func (g *Gate) SetRevision(r uint32) error {
	return g.configure(func(c *gateConfig) { c.Revision = r })
}

func (g *Gate) configure(change func(*gateConfig)) error {
	g.settings.Lock()
	defer g.settings.Unlock()
	var c gateConfig
	err := g.objs.HgConfig1.Lookup(uint32(0), &c)
	if err == nil {
		change(&c)
		err = g.objs.HgConfig1.Put(uint32(0), c)
	}
	if err != nil {
		return fmt.Errorf("write the datapath's configuration: %w", err)
	}
	return nil
}

// OpenPort is one that host policies never close.
type OpenPort struct {
	Direction policy.Direction
	Proto     policy.Proto
	Port      uint16
}

// SetOpenPorts makes these the ports that host policies never close.
func (g *Gate) SetOpenPorts(ports []OpenPort) error {
	want := map[gateOpenPort]bool{}
	for _, p := range ports {
		k := gateOpenPort{Port: p.Port, Proto: uint8(p.Proto), Direction: uint8(p.Direction)}
		want[k] = true
		if err := g.objs.HgOpen1.Put(k, uint32(1)); err != nil {
			return fmt.Errorf("write open port %d to the datapath: %w", p.Port, err)
		}
	}
	have, err := g.OpenPorts()
	if err != nil {
		return err
	}
	for _, p := range have {
		k := gateOpenPort{Port: p.Port, Proto: uint8(p.Proto), Direction: uint8(p.Direction)}
		if want[k] {
			continue
		}
		if err := ignoreMissing(g.objs.HgOpen1.Delete(k)); err != nil {
			return fmt.Errorf("remove open port %d from the datapath: %w", p.Port, err)
		}
	}
	return nil
}

// OpenPorts lists them.
func (g *Gate) OpenPorts() ([]OpenPort, error) {
	var out []OpenPort
	var k gateOpenPort
	var v uint32
	it := g.objs.HgOpen1.Iterate()
	for it.Next(&k, &v) {
		out = append(out, OpenPort{policy.Direction(k.Direction), policy.Proto(k.Proto), k.Port})
	}
	return out, it.Err()
}

// Subject is a policy table as the gate knows it: which lengths of port prefixes it
// has, by direction, and whether it is closed for want of room.
type Subject struct {
	Number  uint32
	Lengths [2]uint32
	Closed  bool
}

// Subjects lists them.
func (g *Gate) Subjects() ([]Subject, error) {
	var out []Subject
	var k uint32
	var v gateSubject
	it := g.objs.HgSubject1.Iterate()
	for it.Next(&k, &v) {
		out = append(out, Subject{k, v.Lengths, v.Flags&subjectClosed != 0})
	}
	return out, it.Err()
}
