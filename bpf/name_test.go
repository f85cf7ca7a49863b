package bpf

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/headgate/headgate/policy"
)

const (
	named     policy.Identity = 1 << 25
	nameTable                 = 77
)

func (l *lab) remote(v6 bool) netip.Addr { return pick(v6, world4, world6) }

// outward is a SYN of a to the world.
func (o *outer) outward(v6 bool, port uint16) frame {
	f := o.tcp(v6, 40000, port, syn)
	f.dst = o.remote(v6)
	return f
}

func (o *outer) learn(id policy.Identity, addrs ...netip.Addr) {
	o.Helper()
	for _, a := range addrs {
		_, err := o.g.Names().Put([]NameKey{{Endpoint: o.a.id, Addr: a}}, []policy.Identity{id})
		o.must(err)
	}
}

func head(e PolicyEntry) NameRules { return NameRules{{Direction: policy.Egress}: e} }

// What stands in the maps of names decides about a named address alone; about
// everything else its prefix does.
func TestNames(t *testing.T) {
	o := newOuter(t)
	closed := PolicyTable{}
	port80 := policy.Key{Direction: policy.Egress, Proto: policy.ProtoTCP, Port: 80, PrefixBits: 16}
	low := policy.Key{Direction: policy.Egress, Proto: policy.ProtoTCP, Port: 0, PrefixBits: 1}
	for name, c := range map[string]struct {
		table  PolicyTable
		rules  NameRules
		known  bool
		other  bool // another endpoint knows it
		reason uint8
		rule   uint32
	}{
		"not known":                             {table: closed, rules: head(allow(5)), reason: 133},
		"known":                                 {table: closed, rules: head(allow(5)), known: true, rule: 5},
		"known to another":                      {table: closed, rules: head(allow(5)), other: true, reason: 133},
		"known, the table does not speak of it": {table: everything(), known: true},
		"the port":                              {table: closed, rules: NameRules{{Direction: policy.Egress}: deny(0), port80: allow(6)}, known: true, rule: 6},
		"another port":                          {table: closed, rules: NameRules{{Direction: policy.Egress}: allow(5), {Direction: policy.Egress, Proto: policy.ProtoTCP, Port: 81, PrefixBits: 16}: deny(6)}, known: true, rule: 5},
		"a range":                               {table: closed, rules: NameRules{{Direction: policy.Egress}: deny(0), low: allow(8), port80: deny(9)}, known: true, reason: 181, rule: 9},
		"a deny":                                {table: everything(), rules: head(deny(7)), known: true, reason: 181, rule: 7},
		"no rule allows it":                     {table: everything(), rules: head(deny(0)), known: true, reason: 133},
		"a redirect without a set":              {table: everything(), rules: head(PolicyEntry{Verdict: policy.Redirect, Rule: 4}), known: true, reason: 231, rule: 4},
	} {
		for family, v6 := range families {
			t.Run(family+" "+name, func(t *testing.T) {
				o := o.in(t)
				o.renew(c.table, nil)
				o.emptyNames()
				o.must(o.g.SetNameTable(subjectA, nameTable))
				o.must(o.g.Names().SyncRules(NameRulesKey{Table: nameTable, Identity: named}, nil, c.rules))
				if c.known {
					o.learn(named, o.remote(v6))
				}
				if c.other {
					_, err := o.g.Names().Put([]NameKey{{Endpoint: o.b.id, Addr: o.remote(v6)}}, []policy.Identity{named})
					o.must(err)
				}
				r := o.sends(o.a, o.outward(v6, 80))
				events := o.seen()
				if len(events) == 0 || events[0].Rule != c.rule || events[0].Reason != c.reason {
					t.Errorf("%d events, first %+v; want rule %d, reason %d", len(events), events, c.rule, c.reason)
				}
				if c.reason != 0 {
					o.dropped("SYN", r, c.reason)
				} else if r.action == actionShot {
					t.Error("dropped")
				}
			})
		}
	}
}

// Rules about names pick nothing that is managed here, nor this machine.
func TestNamesOfWhatIsManaged(t *testing.T) {
	o := newOuter(t)
	o.renew(PolicyTable{}, nil)
	o.must(o.g.SetNameTable(subjectA, nameTable))
	o.must(o.g.Names().SyncRules(NameRulesKey{Table: nameTable, Identity: named}, nil, head(allow(5))))
	o.learn(named, o.b.v4, node4)
	o.dropped("to a workload", o.sends(o.a, o.tcp(false, 40000, 80, syn)), 133)
	f := o.tcp(false, 40001, 80, syn)
	f.dst = node4
	o.dropped("to this machine", o.sends(o.a, f), 133)
}

// An open connection is judged again at a new revision: it goes on while its name is
// known, and ends when the rule is gone.
func TestNamesAreJudgedAgain(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			o := o.in(t)
			o.renew(PolicyTable{}, nil)
			o.emptyNames()
			o.must(o.g.SetNameTable(subjectA, nameTable))
			key := NameRulesKey{Table: nameTable, Identity: named}
			o.must(o.g.Names().SyncRules(key, nil, head(allow(5))))
			o.learn(named, o.remote(v6))
			f := o.outward(v6, 443)
			if r := o.sends(o.a, f); r.action == actionShot {
				t.Fatal("SYN dropped")
			}
			o.must(o.g.SetRevision(2))
			if r := o.sends(o.a, f); r.action == actionShot {
				t.Fatal("dropped at a new revision")
			}
			// Without a new revision nothing is asked again.
			o.must(o.g.Names().Delete([]NameKey{{Endpoint: o.a.id, Addr: o.remote(v6)}}))
			if r := o.sends(o.a, f); r.action == actionShot {
				t.Fatal("dropped though nobody judged it again")
			}
			o.learn(named, o.remote(v6))
			o.must(o.g.SetNameTable(subjectA, nameTable+1)) // whose rules say nothing of it
			o.must(o.g.SetRevision(3))
			if r := o.sends(o.a, f); r.action != actionShot {
				t.Error("goes on though its rule is gone")
			}
		})
	}
}

func (o *outer) emptyNames() {
	o.Helper()
	n := o.g.Names()
	var keys []NameKey
	o.must(n.All(func(k NameKey, _ policy.Identity) bool { keys = append(keys, k); return true }))
	o.must(n.Delete(keys))
	rules, err := n.Rules()
	o.must(err)
	for k, r := range rules {
		o.must(n.SyncRules(k, r, nil))
	}
}

func TestNameMaps(t *testing.T) {
	l := newLab(t, func(o *Options) { o.MaxNames = 64 })
	n := l.g.Names()
	key := NameRulesKey{Table: 3, Identity: named}
	k := func(port uint16, bits uint8) policy.Key {
		return policy.Key{Direction: policy.Egress, Proto: policy.ProtoTCP, Port: port, PrefixBits: bits}
	}
	first := NameRules{{Direction: policy.Egress}: deny(0), k(80, 16): allow(1), k(0, 8): allow(2)}
	second := NameRules{{Direction: policy.Egress}: allow(4), k(80, 16): {Verdict: policy.Redirect, Set: 9, Rule: 1, Audit: true}}
	for _, change := range [][2]NameRules{{nil, first}, {first, second}, {second, first}, {first, nil}} {
		l.must(n.SyncRules(key, change[0], change[1]))
		got, err := n.Rules()
		l.must(err)
		if !equalRules(got[key], change[1]) {
			t.Errorf("in the map: %+v, want %+v", got[key], change[1])
		}
	}
	var keys []NameKey
	var ids []policy.Identity
	for i := range 100 {
		keys = append(keys, NameKey{Endpoint: 7, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})})
		ids = append(ids, named)
	}
	done, err := n.Put(keys, ids)
	if !errors.Is(err, ErrFull) || done < 60 || done > 80 { // the kernel rounds
		t.Errorf("%d written, %v; want about 64 and ErrFull", done, err)
	}
	seen := 0
	l.must(n.All(func(NameKey, policy.Identity) bool { seen++; return true }))
	if seen != done {
		t.Errorf("%d in the map, %d were said to be written", seen, done)
	}
	if u := l.usage()["names"]; int(u.Entries) != done {
		t.Errorf("usage says %+v, %d are there", u, done)
	}
	l.must(n.Delete(keys))
	l.must(l.g.SetNameTable(subjectA, 3))
	l.must(l.g.SyncPolicy(subjectA, nil, everything()))
	if tables, err := l.g.NameTables(); err != nil || tables[subjectA] != 3 || len(tables) != 1 {
		t.Errorf("%v, %v: want the table of %d to be 3 still", tables, err, subjectA)
	}
}

func equalRules(a, b NameRules) bool {
	if len(a) != len(b) {
		return false
	}
	for k, e := range b {
		if a[k] != e {
			return false
		}
	}
	return true
}
