package policy

import (
	"math/rand/v2"
	"testing"
)

// Lays random tables over each other and asks for every connection: what is in force
// is as before, and audited is exactly what the stricter denies and it does not.
func TestAuditedTables(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	peers := []Identity{0, 5, 6, 7}
	ports := []uint16{0, 1, 2, 3, 7, 8, 80, 0x7fff, 0x8000, 0xffff}
	bits := []uint8{0, 1, 12, 14, 15, 16}
	random := func() *Table {
		table := &Table{Entries: map[Key]Entry{}, Rules: []Ref{{Policy: "a"}, {Policy: "b"}, {Policy: "c"}}}
		for range r.IntN(20) {
			k := Key{Peer: peers[r.IntN(len(peers))], Direction: Direction(r.IntN(2))}
			if r.IntN(4) > 0 {
				k.Proto = []Proto{ProtoTCP, ProtoUDP}[r.IntN(2)]
				k.PrefixBits = bits[r.IntN(len(bits))]
				k.Port = uint16(uint32(ports[r.IntN(len(ports))]) >> (16 - k.PrefixBits) << (16 - k.PrefixBits))
			}
			table.Entries[k] = Entry{Verdict: Verdict(r.IntN(2)), Rule: RuleID(r.IntN(4))}
		}
		return table
	}
	for range 500 {
		inForce, strict := random(), random()
		got := audited(inForce, strict)
		table := Table{Entries: map[Key]Entry{}, Rules: got.Rules}
		audits := Table{Entries: map[Key]Entry{}}
		for k, e := range got.Entries {
			table.Entries[k] = e.Entry
			v := Deny
			if e.Audit {
				v = Allow
			}
			audits.Entries[k] = Entry{Verdict: v, Rule: e.AuditBy}
		}
		for _, peer := range append(peers[1:], 9) {
			for _, d := range []Direction{Ingress, Egress} {
				for _, proto := range []Proto{ProtoTCP, ProtoUDP, ProtoICMP} {
					for _, port := range ports {
						is, would := inForce.Lookup(peer, d, proto, port), strict.Lookup(peer, d, proto, port)
						if now := table.Lookup(peer, d, proto, port); now != is {
							t.Fatalf("peer %d %s proto %d port %d: %+v, want %+v", peer, d, proto, port, now, is)
						}
						audit := audits.Lookup(peer, d, proto, port)
						want := is.Verdict != Deny && would.Verdict == Deny
						if (audit.Verdict == Allow) != want {
							t.Fatalf("peer %d %s proto %d port %d: audited %v, want %v", peer, d, proto, port, !want, want)
						}
						if want && would.Rule != 0 && got.Rules[audit.Rule-1] != strict.Rules[would.Rule-1] {
							t.Fatalf("audited by %v, want %v", got.Rules[audit.Rule-1], strict.Rules[would.Rule-1])
						}
					}
				}
			}
		}
	}
}
