package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
)

// NameTable is what the egress rules of a subject say of addresses outside, where some
// of them pick these by DNS names. It is plain data, so that whoever sees the answers
// can judge an address as soon as it has a name, by the same Resolve, and without
// asking anybody. Its rules select every subject: they are those of one.
type NameTable struct {
	ID          SetID // content hash
	Enforcement Enforcement
	Audit       bool // no policy denies: all of them only audit
	Rules       []Rule
	speaks      map[string]struct{} // selectors
}

// NewNameTable takes what concerns addresses outside from the rules; nil: no rule that
// selects the subject picks by names. Prefixes are all that have an identity, but those
// of length zero.
func NewNameTable(subject Subject, rules []Rule, prefixes []netip.Prefix, audit bool) *NameTable {
	t := &NameTable{Enforcement: subject.Enforcement, Audit: audit}
	if subject.Enforcement == EnforcementNever {
		return nil
	}
	named := false
	world := outsideInfos(prefixes)
	for i := range rules {
		r := rules[i]
		if r.Direction != Egress || r.Node != subject.Node || !r.Subject.Matches(subject.Labels) {
			continue
		}
		r.Subject, r.Node = Selector{}, false
		r.Peers = outsidePeers(r.Peers, world)
		named = named || slices.ContainsFunc(r.Peers, isFQDN)
		if len(r.Ports) > 0 {
			r.Ports = slices.DeleteFunc(slices.Clone(r.Ports), func(p PortRule) bool { return p.Name != "" }) // nobody outside has such names
			if len(r.Ports) == 0 {
				r.Peers, r.AnyPeer = nil, false // else it would be about every port
			}
		}
		t.Rules = append(t.Rules, r)
	}
	if !named {
		return nil
	}
	t.Seal()
	return t
}

func isFQDN(p Peer) bool { _, ok := p.(FQDN); return ok }

// outsideInfos are the identities that addresses outside have without names.
func outsideInfos(prefixes []netip.Prefix) []IdentityInfo {
	all := append([]netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}, prefixes...)
	out := make([]IdentityInfo, len(all))
	for i, p := range all {
		out[i] = IdentityInfo{ID: IdentityMinLocal, Prefix: p, Labels: CIDRLabels(p)}
	}
	return out
}

// outsidePeers leaves out who never is outside.
func outsidePeers(peers []Peer, world []IdentityInfo) []Peer {
	var out []Peer
	for _, p := range peers {
		if a, ok := p.(*audience); ok { // as an Index has it
			p = a.peer
		}
		switch p := p.(type) {
		case FQDN, CIDR:
			out = append(out, p)
		case Entity, Selector:
			if slices.ContainsFunc(world, func(info IdentityInfo) bool { return p.selects(&info, "") }) {
				out = append(out, p)
			}
		}
	}
	return out
}

// Selectors are those of names in the table, each once and in order.
func (t *NameTable) Selectors() []FQDN {
	var out []FQDN
	for _, r := range t.Rules {
		for _, p := range r.Peers {
			if f, ok := p.(FQDN); ok {
				out = append(out, f)
			}
		}
	}
	slices.SortFunc(out, compareFQDN)
	return slices.CompactFunc(out, func(a, b FQDN) bool { return compareFQDN(a, b) == 0 })
}

func compareFQDN(a, b FQDN) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Pattern, b.Pattern))
}

// Refs are the rules that a table may name as deciding, each once.
func (t *NameTable) Refs() []Ref {
	var out []Ref
	for _, r := range t.Rules {
		out = append(out, r.Ref)
		for _, p := range r.Ports {
			out = append(out, p.Ref)
		}
	}
	slices.SortFunc(out, func(a, b Ref) int { return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Path, b.Path)) })
	return slices.Compact(out)
}

// Resolve judges the addresses of a prefix that the given selectors pick, and none
// other. The entries have no peer and are complete in themselves: whatever is looked
// up in them is found, at the latest in the entry for every protocol.
func (t *NameTable) Resolve(prefix netip.Prefix, picked []FQDN) (AuditedTable, L7Table) {
	const peer = IdentityMinLocal
	ids := NewIdentities()
	ids.insert(&IdentityInfo{ID: peer, Prefix: prefix, Labels: CIDRLabels(prefix), Picked: picked})
	table, sets := ResolveAudited(Subject{Enforcement: t.Enforcement}, t.Rules, ids, t.Audit)
	out := AuditedTable{Entries: map[Key]AuditedEntry{}, Rules: table.Rules}
	keys := []Key{{Direction: Egress}}
	for k := range table.Entries {
		if k.Direction == Egress && (k.Peer == peer || k.Peer == 0) {
			keys = append(keys, Key{Direction: Egress, Proto: k.Proto, Port: k.Port, PrefixBits: k.PrefixBits})
		}
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.PrefixBits, b.PrefixBits), cmp.Compare(a.Port, b.Port))
	})
	used := L7Table{}
	for i, k := range keys {
		at := k
		at.Peer = peer
		e, _ := over(table.Entries, at)
		if i > 0 {
			if old, found := over(out.Entries, k); found && old == e {
				continue
			}
		}
		out.Entries[k] = e
		if e.Verdict == Redirect {
			used[e.Set] = sets[e.Set]
		}
	}
	return out, used
}

// Seal gives the table its id, after which it must not change.
func (t *NameTable) Seal() {
	t.speaks = map[string]struct{}{}
	for _, f := range t.Selectors() {
		t.speaks[f.String()] = struct{}{}
	}
	b := []byte{byte(t.Enforcement), bit(t.Audit)}
	for i := range t.Rules {
		b = t.Rules[i].appendOutside(b)
	}
	sum := sha256.Sum256(b)
	copy(t.ID[:], sum[:])
}

func bit(on bool) byte {
	if on {
		return 1
	}
	return 0
}

// appendOutside writes the rule such that different rules give different bytes.
func (r *Rule) appendOutside(b []byte) []byte {
	b = append(b, byte(r.Mode), bit(r.Deny), bit(r.DefaultDeny), bit(r.AnyPeer))
	b = appendStrings(b, r.Ref.Policy, r.Ref.Path)
	b = binary.AppendUvarint(b, uint64(len(r.Peers)))
	for _, p := range r.Peers {
		switch p := p.(type) {
		case FQDN:
			b = appendStrings(append(b, 1), p.Name, p.Pattern)
		case CIDR:
			b = binary.AppendUvarint(appendString(append(b, 2), p.Prefix.String()), uint64(len(p.Except)))
			for _, e := range p.Except {
				b = appendString(b, e.String())
			}
		case Entity:
			b = appendString(append(b, 3), string(p))
		case Selector:
			b = appendString(append(b, 4), string(p.appendText(nil)))
		}
	}
	b = appendString(b, string(Selector{r.Requires}.appendText(nil)))
	if d := r.DenyResponse; d != nil {
		b = appendString(binary.AppendUvarint(append(b, 1), uint64(d.Status)), d.Body)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Ports)))
	for i := range r.Ports {
		p := &r.Ports[i]
		b = append(b, byte(p.Proto), byte(p.First>>8), byte(p.First), byte(p.Last>>8), byte(p.Last))
		b = appendStrings(b, p.Ref.Policy, p.Ref.Path)
		if p.L7 != nil {
			set := L7Set{Protocol: p.L7.Protocol, HTTP: p.L7.HTTP, GRPC: p.L7.GRPC, Kafka: p.L7.Kafka, DNS: p.L7.DNS, TLS: p.L7.TLS, Ends: p.L7.Ends}
			set.seal()
			b = append(append(b, 1), set.ID[:]...)
		}
		if l := p.Listener; l != nil {
			b = binary.AppendVarint(appendStrings(append(b, 2), l.Kind, l.Namespace, l.Config, l.Name), int64(l.Priority))
		}
	}
	return b
}

// NameKey is an address that an endpoint knows by a name.
type NameKey struct {
	Endpoint uint16
	Addr     netip.Addr
}

// NameRulesKey is a table by its number, and what addresses it is asked about.
type NameRulesKey struct {
	Table    uint32
	Identity Identity
}

// NumberedEntry is an Entry with numbers in place of names.
type NumberedEntry struct {
	Verdict Verdict
	Set     uint32 // of the L7 set
	Rule    uint32 // for people; with Audit, the one that would deny
	Audit   bool   // let through, and reported as what a policy that audits would deny
}

// NameRules is what a table says of one identity, in keys without a peer.
type NameRules = map[Key]NumberedEntry

// Speaks reports whether a rule of the table has the selector.
func (t *NameTable) Speaks(f FQDN) bool {
	_, ok := t.speaks[f.String()]
	return ok
}
