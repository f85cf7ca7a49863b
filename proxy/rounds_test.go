package proxy

import (
	"errors"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/proxy/fqdn"
	"github.com/headgate/headgate/redirect"
)

func openDir(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// nameMaps are the kernel's maps of names, which may refuse.
type nameMaps struct {
	mu          sync.Mutex
	addrs       map[policy.NameKey]policy.Identity
	rules       map[policy.NameRulesKey]policy.NameRules
	write, drop error
	onWrite     func()
}

func (m *nameMaps) Put(keys []policy.NameKey, ids []policy.Identity) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, k := range keys {
		m.addrs[k] = ids[i]
	}
	return len(keys), nil
}

func (m *nameMaps) Delete(keys []policy.NameKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(keys) > 0 && m.drop != nil {
		return m.drop
	}
	for _, k := range keys {
		delete(m.addrs, k)
	}
	return nil
}

func (m *nameMaps) All(f func(policy.NameKey, policy.Identity) bool) error {
	m.mu.Lock()
	all := maps.Clone(m.addrs)
	m.mu.Unlock()
	for k, id := range all {
		f(k, id)
	}
	return nil
}

func (m *nameMaps) SyncRules(k policy.NameRulesKey, _, want policy.NameRules) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.onWrite != nil {
		m.onWrite()
	}
	if m.write == nil {
		m.rules[k] = want
	}
	return m.write
}

func (m *nameMaps) Rules() (map[policy.NameRulesKey]policy.NameRules, error) { return m.rules, nil }

// NameTable is the gate's, which judges by no table.
func (m *nameMaps) NameTable(netip.Addr) (uint32, error) { return 0, nil }

func (m *nameMaps) Room() int { return 1 << 16 }

// naming has a client know names by a rule.
func naming(number uint32, pattern string) *redirect.Names {
	peer, err := policy.NewFQDN("", pattern)
	if err != nil {
		panic(err)
	}
	ref := policy.Ref{Policy: "p", Path: "egress[0]"}
	rule := policy.Rule{Direction: policy.Egress, DefaultDeny: true, Ref: ref, Peers: []policy.Peer{peer}}
	return &redirect.Names{
		Tables: map[uint32]*policy.NameTable{number: policy.NewNameTable(policy.Subject{}, []policy.Rule{rule}, nil, false)},
		Rules:  map[policy.Ref]uint32{ref: number}, Sets: map[policy.SetID]redirect.SetNumber{},
		Endpoints: []redirect.NamedEndpoint{{ID: 7, Name: "default/client", Addrs: []netip.Addr{dnsClient.Addr()}, Table: number}},
	}
}

// withNames is a process that learns names.
func withNames(t *testing.T) (*shorter, *nameMaps) {
	t.Helper()
	s := shortcutBy(t, nil, DNSLimits{})
	m := &nameMaps{addrs: map[policy.NameKey]policy.Identity{}, rules: map[policy.NameRulesKey]policy.NameRules{}}
	s.p.config.Names = &fqdn.Config{Maps: m, Gate: m}
	must(t, s.p.openNames())
	return s, m
}

// logged is what was said of rounds since it was asked last.
func (f *fakeShortcut) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := strings.Join(f.log, ", ")
	f.log = nil
	return text
}

// Each change of rules begins rounds when all of it is in force, and ends those before when
// none is; what is allowed stays so where nothing about questions changes.
func TestRounds(t *testing.T) {
	s, m := withNames(t)
	must(t, s.p.closeShortcut())
	s.f.logged()
	s.f.onRound = func(which int, round uint64) error {
		if which == 0 && round == 0 && s.p.snapshot.Load() != nil && slices.Contains(patterns(s.p.snapshot.Load()), "*.next") {
			t.Error("what was allowed before holds while new rules do")
		}
		return nil
	}
	const all = "known: none, told: none, told: a round, known: a round"
	must(t, s.only("*.example", naming(1, "*.example")))
	if got := s.f.logged(); got != all {
		t.Errorf("the first rules: %s", got)
	}
	q := queryOf("a.example.", 5)
	s.f.goOn(5, s.pack(q), 0)
	s.answer(reply(q, "a.example. 60 IN A 192.0.2.1"))
	if len(m.addrs) != 1 || len(s.f.tells) != 1 || s.f.tells[0].as[0] == 0 {
		t.Fatalf("the datapath has %v, and was told %+v", m.addrs, s.f.tells)
	}
	m.onWrite = func() {
		if _, told := s.f.rounds(); told != 0 || s.p.telling.Load() != 0 {
			t.Error("answers go on while rules about their addresses change")
		}
	}
	known, told := s.f.rounds()
	must(t, s.only("*.example", naming(2, "a.example")))
	if got := s.f.logged(); got != "told: none, told: a round, known: a round" {
		t.Errorf("rules about names: %s", got)
	}
	if k, now := s.f.rounds(); k != known || now == told || now == 0 || s.p.telling.Load() != now {
		t.Errorf("rules about names: rounds %x %x, before %x %x", k, now, known, told)
	}
	must(t, s.only("*.next", naming(2, "a.example")))
	if got := s.f.logged(); got != all {
		t.Errorf("rules about questions: %s", got)
	}
	if k, _ := s.f.rounds(); k == known || k != s.p.snapshot.Load().round {
		t.Error("rules about questions: the round is that of before")
	}
	s.f.onRound = nil

	m.write = errors.New("full")
	must(t, s.only("*.next", naming(3, "*")))
	if _, told := s.f.rounds(); told != 0 || s.p.telling.Load() != 0 {
		t.Error("answers go on after rules that are not in force")
	}
	m.write = nil
	must(t, s.only("*.next", naming(5, "*")))
	if _, told := s.f.rounds(); told == 0 || len(m.addrs) != 1 {
		t.Errorf("and there is room again: round %x, %v", told, m.addrs)
	}
	m.write, m.drop = errors.New("full"), errors.New("stuck")
	if err := s.only("*.last", naming(6, "*.nothing")); err == nil {
		t.Error("an address that stays is no error")
	}
	if known, told := s.f.rounds(); known != 0 || told != 0 {
		t.Errorf("after a failure: rounds %x, %x", known, told)
	}
	m.write, m.drop = nil, nil
	must(t, s.only("*.last", naming(6, "*.nothing")))
	if known, told := s.f.rounds(); known == 0 || told == 0 {
		t.Errorf("it succeeds: rounds %x, %x", known, told)
	}
}

func patterns(s *snapshot) (all []string) {
	for _, set := range s.sets {
		all = append(all, strings.TrimRight(string(set.id[:]), "\x00"))
	}
	return all
}

// If the datapath will not end a round, no new rules hold.
func TestRoundThatDoesNotEnd(t *testing.T) {
	s, _ := withNames(t)
	must(t, s.only("*.example", naming(1, "*.example")))
	before := s.p.snapshot.Load()
	s.f.onRound = func(which int, _ uint64) error {
		if which == 0 {
			return errors.New("no")
		}
		return nil
	}
	if err := s.only("*.other", nil); err == nil || s.p.snapshot.Load() != before {
		t.Errorf("%v; the rules have changed: %v", err, s.p.snapshot.Load() != before)
	}
	s.f.onRound = func(which int, _ uint64) error {
		if which == 1 {
			return errors.New("no")
		}
		return nil
	}
	if err := s.only("*.example", naming(2, "*")); err == nil {
		t.Error("rules about names hold, and answers of before may go on")
	}
}

// A process that is left to drain is still told of rules, and does not void what the other says.
func TestWhoDrainsBeginsNoRound(t *testing.T) {
	s, _ := withNames(t)
	must(t, s.only("*.example", naming(1, "*.example")))
	_, err := (&api{p: s.p}).Drain(t.Context(), &proxyv1.DrainRequest{GraceNs: int64(time.Second)})
	must(t, err)
	s.f.logged()
	must(t, s.only("*.other", naming(2, "*.other")))
	if got := s.f.logged(); got != "" || s.p.telling.Load() != 0 {
		t.Errorf("%s", got)
	}
	if a := s.ask(queryOf("a.example.", 1)); a == nil {
		t.Error("its rules are not those it was told last")
	}
}

func TestJudgesAs(t *testing.T) {
	const other = redirect.SetNumber(4<<24 | 2)
	one, two := judged{id: policy.SetID{1}}, judged{id: policy.SetID{2}}
	failed := judged{id: policy.SetID{1}, err: errors.New("no")}
	of := func(sets map[redirect.SetNumber]judged) *snapshot { return &snapshot{sets: sets} }
	base := of(map[redirect.SetNumber]judged{setDNS: one, setA: two})
	for name, c := range map[string]struct {
		before, after *snapshot
		same          bool
	}{
		"nothing before":     {nil, base, false},
		"the same":           {base, of(map[redirect.SetNumber]judged{setDNS: one, setA: two}), true},
		"another set more":   {base, of(map[redirect.SetNumber]judged{setDNS: one, other: two}), true},
		"another protocol":   {base, of(map[redirect.SetNumber]judged{setDNS: one, setA: one}), true},
		"another content":    {base, of(map[redirect.SetNumber]judged{setDNS: two, setA: two}), false},
		"it is gone":         {base, of(map[redirect.SetNumber]judged{setA: two}), false},
		"it fails":           {base, of(map[redirect.SetNumber]judged{setDNS: failed}), false},
		"it fails no more":   {of(map[redirect.SetNumber]judged{setDNS: failed}), base, false},
		"audit begins":       {base, &snapshot{sets: base.sets, audit: true}, false},
		"audit is over":      {&snapshot{sets: base.sets, audit: true}, base, false},
		"nothing to nothing": {of(nil), of(nil), true},
	} {
		if c.before.judgesAs(c.after) != c.same {
			t.Errorf("%s: want %v", name, c.same)
		}
	}
}

// What was told becomes void again and again, for names that were forgotten or a clock that was
// set; but no round begins while rules change.
func TestNoRoundBeginsWhileRulesChange(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{})
	s.p.tellFromNow()
	_, first := s.f.rounds()
	s.p.tellAnew()
	if _, second := s.f.rounds(); first == 0 || second == 0 || second == first || s.p.telling.Load() != second {
		t.Errorf("round %d, then %d, and told in %d", first, second, s.p.telling.Load())
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
				s.p.tellAnew()
			}
		}
	}()
	for range 3000 {
		s.p.tellFromNow()
		must(t, s.p.beginTelling())
		for range 3 {
			runtime.Gosched()
			if _, told := s.f.rounds(); told != 0 || s.p.telling.Load() != 0 {
				t.Fatalf("round %d has begun", told)
			}
		}
	}
	close(end)
	<-ended
}
