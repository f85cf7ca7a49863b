package fqdn

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// state is owned by who holds Store.own.
type state struct {
	told    []outcome // to be told at the end of the turn
	stopped bool      // Run has returned
	one     [1]task   // of LearnNow

	names *redirect.Names // in force; nil: none yet
	// delivered is what the agent delivered last: names without what is kept of before.
	delivered *redirect.Names
	limits    redirect.NameLimits
	matcher   *matcher
	prefixes  *prefixes

	hosts  map[uint16]*host
	byAddr map[netip.Addr]*host
	picks  map[string]*pick // by key
	none   *pick
	numbers
	rules map[policy.NameRulesKey]*ruling

	stuck    stuck
	restored []saved // of endpoints that are not known yet
	waiting  []waiting
	wanted   []redirect.MissingSet // to be told

	addresses int       // that are learnt, of all endpoints
	pairs     int       // of a name and an address, of all endpoints
	inKernel  int       // of these
	expires   int64     // the earliest there may be, Unix; 0: none
	changed   time.Time // since when something is not on disk; zero: nothing
	savedAt   time.Time
	droppedAt time.Time
	madeRoom  time.Time
	lookedAt  time.Time // at everything, for what has run out
	lookTook  time.Duration
	sweepAt   time.Time // what an earlier process left is removed then; zero: it is
	partly    bool      // the kernel does not know every address as what it is
	updating  bool      // an update is under way, and pauses
	leaving   bool      // another process has taken over
	over      bool      // and nothing is learnt any more
}

// host is an endpoint and what it was told.
type host struct {
	id      uint16
	name    string
	addrs   []netip.Addr
	tables  []uint32 // of rules about names: that in force, and the one before it
	since   time.Time
	known   map[string]*entry // by name
	holds   map[[16]byte]held
	numbers map[policy.Identity]int // addresses by what they are known as
	pairs   int                     // of a name and an address
	unruled int                     // names that no rule is about
}

// entry is a name and its addresses.
type entry struct {
	name  string
	pick  *pick
	addrs []learnt
}

type learnt struct {
	addr    [16]byte
	expires uint32 // Unix
}

// held is an address that an endpoint knows, in few bytes: there may be a million.
type held struct {
	one  *entry
	more *[]*entry
	as   policy.Identity // in the kernel; 0: not there
}

func (h *held) entries() []*entry {
	if h.more != nil {
		return *h.more
	}
	return []*entry{h.one}
}

// pick is a set of selectors.
type pick struct {
	key       string
	selectors []policy.FQDN
}

// known is what an identity stands for.
type known struct {
	prefix netip.Prefix
	key    string // of the pick
}

// numbers are the identities. Those of different processes do not meet: each has a part
// of the range of its own for as long as the other may write.
type numbers struct {
	byKnown map[known]policy.Identity
	byID    map[policy.Identity]identity
	first   policy.Identity
	next    policy.Identity
}

type identity struct {
	known
	pick  *pick
	users int
}

// Identities of addresses that are known by names.
const (
	firstIdentity policy.Identity = 1 << 25
	part          policy.Identity = 1 << 20 // for one process
	parts                         = 16
)

// ruling is what a table says of an identity.
type ruling struct {
	want    policy.NameRules
	written policy.NameRules
	table   policy.SetID // content of the table that it was made from
	missing bool         // a set that nobody made
	unasked bool         // and for which nobody was asked, as the table was not to be in force any more
	fails   bool         // the kernel may have something else
}

// waiting is an answer whose rules are not in force yet.
type waiting struct {
	keys  []policy.NameRulesKey
	until time.Time
	done  func(error)
}

func (st *state) init() {
	st.hosts, st.byAddr = map[uint16]*host{}, map[netip.Addr]*host{}
	st.none = &pick{}
	st.picks = map[string]*pick{"": st.none}
	st.byKnown, st.byID = map[known]policy.Identity{}, map[policy.Identity]identity{}
	st.first = firstIdentity
	st.stuck.owners = map[policy.NameKey]string{}
	st.rules = map[policy.NameRulesKey]*ruling{}
	st.matcher, st.prefixes = newMatcher(nil), newPrefixes(nil)
	st.limits = withDefaults(redirect.NameLimits{})
}

// pickOf is the set of selectors that pick a name.
func (st *state) pickOf(name string) *pick { return st.pickSet(st.matcher.match(name)) }

func (st *state) pickSet(places []int) *pick {
	if len(places) == 0 {
		return st.none
	}
	var b strings.Builder
	for _, i := range places {
		b.WriteString(st.matcher.all[i].String())
		b.WriteByte(0)
	}
	if p := st.picks[b.String()]; p != nil {
		return p
	}
	p := &pick{key: b.String()}
	for _, i := range places {
		p.selectors = append(p.selectors, st.matcher.all[i])
	}
	st.picks[p.key] = p
	return p
}

// pickOfAll is what picks an address by any of its names.
func (st *state) pickOfAll(have *held) *pick {
	if have.more == nil {
		return have.one.pick
	}
	entries := *have.more
	first := entries[0].pick
	same := true
	for _, e := range entries[1:] {
		same = same && e.pick == first
	}
	if same {
		return first
	}
	var all []int
	for _, e := range entries {
		all = append(all, st.matcher.match(e.name)...)
	}
	slices.Sort(all)
	return st.pickSet(slices.Compact(all))
}

// identify is the number of what an address is known as; 0: no selector picks it.
func (st *state) identify(addr netip.Addr, have *held) policy.Identity {
	p := st.pickOfAll(have)
	if p == st.none {
		return 0
	}
	k := known{st.prefixes.of(addr), p.key}
	if id, ok := st.byKnown[k]; ok {
		return id
	}
	for range part {
		id := st.first + st.next%part
		st.next++
		if _, taken := st.byID[id]; !taken {
			st.byKnown[k], st.byID[id] = id, identity{known: k, pick: p}
			return id
		}
	}
	return 0 // a million of them: the address is judged by its prefix
}

// use counts an address of a host that is known as something.
func (st *state) use(h *host, id policy.Identity, n int) {
	if id == 0 {
		return
	}
	if h.numbers[id] += n; h.numbers[id] <= 0 {
		delete(h.numbers, id)
	}
	if i, ok := st.byID[id]; ok {
		i.users += n
		st.byID[id] = i
	}
}
