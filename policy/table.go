package policy

// Direction of a connection, seen from the subject of a policy.
type Direction uint8

const (
	Ingress Direction = 0
	Egress  Direction = 1
)

func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Proto is an IP protocol number (IANA); zero is any protocol.
type Proto uint8

const (
	ProtoAny    Proto = 0
	ProtoICMP   Proto = 1
	ProtoTCP    Proto = 6
	ProtoUDP    Proto = 17
	ProtoICMPv6 Proto = 58
	ProtoSCTP   Proto = 132
)

// Verdict is what becomes of a connection or of a request. The zero Verdict
// denies.
type Verdict uint8

const (
	Deny     Verdict = 0
	Allow    Verdict = 1
	Redirect Verdict = 2 // allowed as far as the proxy allows it, by the L7 set
)

func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Redirect:
		return "redirect"
	}
	return "deny"
}

// Key selects connections of one subject. Port holds the port's (or the ICMP
// type's) leading PrefixBits, the rest zero; PrefixBits 0 is every port. With
// Proto 0 (any) PrefixBits is 0 too. Peer 0 is every peer.
type Key struct {
	Peer       Identity
	Direction  Direction
	Proto      Proto
	Port       uint16
	PrefixBits uint8
}

// Entry is what a Table says of a Key.
type Entry struct {
	Verdict Verdict
	Set     SetID // the L7 set, when Verdict is Redirect
	Rule    RuleID
}

// RuleID numbers the rules of one Table (index in Table.Rules, from 1). Zero:
// no rule decided.
type RuleID uint32

// Table is the L3/L4 policy of one subject, in the form the kernel looks it up:
//
//  1. the longest port prefix of (peer, direction, proto, port), then
//  2. (peer, direction, any, 0), then
//  3. the longest port prefix of (0, direction, proto, port), then
//  4. (0, direction, any, 0); what is not found by then is denied.
//
// The first hit decides alone: entries for a peer already account for the rules
// that name every peer, and denies have been put before allows when the table
// was made. A direction without default deny is an entry for everything.
type Table struct {
	Entries map[Key]Entry
	Rules   []Ref // Rules[i-1] is the rule that RuleID i names
}

// Lookup judges one connection as the kernel does.
func (t *Table) Lookup(peer Identity, dir Direction, proto Proto, port uint16) Entry {
	if peer == IdentityUnknown {
		return Entry{}
	}
	for _, p := range [2]Identity{peer, 0} {
		for bits := 16; bits >= 0; bits-- {
			masked := uint16(uint32(port) >> (16 - bits) << (16 - bits))
			if e, ok := t.Entries[Key{p, dir, proto, masked, uint8(bits)}]; ok {
				return e
			}
		}
		if e, ok := t.Entries[Key{Peer: p, Direction: dir}]; ok {
			return e
		}
	}
	return Entry{}
}

// Ref names a rule as people write it.
type Ref struct {
	Policy string // "default/rule1", or "rule1" for a clusterwide policy
	Path   string // "ingress[0].toPorts[0].http[1]"
}

func (r Ref) String() string {
	switch {
	case r.Policy == "":
		return r.Path
	case r.Path == "":
		return r.Policy
	}
	return r.Policy + " " + r.Path
}
