package fqdn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// kernel is the maps, and what would be wrong to write to them.
type kernel struct {
	mu    sync.Mutex
	room  int
	addrs map[policy.NameKey]policy.Identity
	rules map[policy.NameRulesKey]policy.NameRules
	fail  error                 // of the next writes of rules
	stuck error                 // of the next removals of addresses
	gate  map[netip.Addr]uint32 // tables, as agents have told the gate

	gateFails error
}

// NameTable is the gate's.
func (k *kernel) NameTable(a netip.Addr) (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.gate[a], k.gateFails
}

// goesBy has the gate judge by the tables of a snapshot, as the agent does when the proxy has it.
func (k *kernel) goesBy(n *redirect.Names) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gate = map[netip.Addr]uint32{}
	if n == nil {
		return
	}
	for _, e := range n.Endpoints {
		for _, a := range e.Addrs {
			k.gate[a] = e.Table
		}
	}
}

func newKernel() *kernel {
	return &kernel{room: 1 << 20, addrs: map[policy.NameKey]policy.Identity{}, rules: map[policy.NameRulesKey]policy.NameRules{}}
}

func (k *kernel) Put(keys []policy.NameKey, ids []policy.Identity) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, key := range keys {
		if _, there := k.addrs[key]; !there && len(k.addrs) >= k.room {
			return i, errors.New("full")
		}
		k.addrs[key] = ids[i]
	}
	return len(keys), nil
}

func (k *kernel) Delete(keys []policy.NameKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(keys) > 0 && k.stuck != nil {
		return k.stuck
	}
	for _, key := range keys {
		delete(k.addrs, key)
	}
	return nil
}

func (k *kernel) All(f func(policy.NameKey, policy.Identity) bool) error {
	k.mu.Lock()
	all := maps.Clone(k.addrs)
	k.mu.Unlock()
	for key, id := range all {
		if !f(key, id) {
			break
		}
	}
	return nil
}

func (k *kernel) SyncRules(key policy.NameRulesKey, old, want policy.NameRules) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	now := maps.Clone(k.rules[key])
	if now == nil {
		now = policy.NameRules{}
	}
	for rule := range old {
		delete(now, rule)
	}
	maps.Copy(now, want)
	if k.rules[key] = now; len(now) == 0 {
		delete(k.rules, key)
	}
	return nil
}

func (k *kernel) Rules() (map[policy.NameRulesKey]policy.NameRules, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.rules), nil
}

func (k *kernel) Room() int { return k.room }

// lookup judges as the gate does; false: the table says nothing of the address.
func (k *kernel) lookup(table uint32, endpoint uint16, addr string, proto policy.Proto, port uint16) (policy.NumberedEntry, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id, ok := k.addrs[policy.NameKey{Endpoint: endpoint, Addr: netip.MustParseAddr(addr)}]
	if !ok {
		return policy.NumberedEntry{}, false
	}
	rules := k.rules[policy.NameRulesKey{Table: table, Identity: id}]
	for bits := 16; bits >= 0; bits-- {
		masked := uint16(uint32(port) >> (16 - bits) << (16 - bits))
		if e, ok := rules[policy.Key{Direction: policy.Egress, Proto: proto, Port: masked, PrefixBits: uint8(bits)}]; ok {
			return e, true
		}
	}
	e, ok := rules[policy.Key{Direction: policy.Egress}]
	return e, ok
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.mu.Unlock()
}

type connected struct {
	mu   sync.Mutex
	list [][2]netip.Addr
}

func (c *connected) Pairs(_ context.Context, f func(opener, other netip.Addr)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.list {
		f(p[0], p[1])
	}
	return nil
}

func (c *connected) set(pairs ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = nil
	for i := 0; i+1 < len(pairs); i += 2 {
		c.list = append(c.list, [2]netip.Addr{netip.MustParseAddr(pairs[i]), netip.MustParseAddr(pairs[i+1])})
	}
}

type memory struct {
	mu   sync.Mutex
	data []byte
}

func (m *memory) Load() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data, nil
}

func (m *memory) Save(b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = b
	return nil
}

// bench is a Store that runs, with all that is around it.
type bench struct {
	testing.TB
	*Store
	k     *kernel
	time  *clock
	open  *connected
	disk  *memory
	end   context.CancelFunc
	ended chan struct{}
}

func newBench(t testing.TB, change ...func(*bench)) *bench {
	t.Helper()
	b := &bench{TB: t, k: newKernel(), time: &clock{now: time.Unix(1_800_000_000, 0)}, open: &connected{}, disk: &memory{}}
	for _, f := range change {
		f(b)
	}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *bench) start() {
	b.Helper()
	var err error
	b.Store, err = New(Config{Maps: b.k, Gate: b.k, Connections: b.open, Disk: b.disk, Now: b.time.Now})
	if err != nil {
		b.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	ended, store := make(chan struct{}), b.Store
	b.end, b.ended = end, ended
	go func() { store.Run(ctx); close(ended) }()
}

func (b *bench) stop() {
	b.end()
	<-b.ended
}

func (b *bench) update(n *redirect.Names) {
	b.Helper()
	if err := b.Update(context.Background(), n); err != nil {
		b.Fatal(err)
	}
	b.k.goesBy(n)
}

// learn asks, one way or the other, and waits.
func (b *bench) learn(client, name string, addrs ...string) error {
	b.Helper()
	if rand.IntN(2) == 0 {
		if now, err := b.LearnNow(b.answer(client, name, addrs...), nil); now {
			return err
		}
	}
	done := make(chan error, 1)
	b.Learn(b.answer(client, name, addrs...), func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		b.Fatalf("no end to learning %s", name)
		return nil
	}
}

func (b *bench) answer(client, name string, addrs ...string) Answer {
	a := Answer{Client: netip.MustParseAddr(client), Name: name, At: b.time.Now()}
	for _, s := range addrs {
		a.Addresses = append(a.Addresses, Address{netip.MustParseAddr(s), 20 * time.Second})
	}
	return a
}

// clean runs the janitor now.
func (b *bench) clean() {
	_ = b.do(context.Background(), func() { b.lookTook = 0 }) // however long the last look took
	b.Store.clean(context.Background())
}

func (b *bench) verdict(what string, endpoint uint16, addr string, port uint16, want string) {
	b.Helper()
	e, ok := b.k.lookup(1, endpoint, addr, policy.ProtoTCP, port)
	got := e.Verdict.String()
	if !ok {
		got = "nothing"
	}
	if got != want {
		b.Errorf("%s: %s port %d of endpoint %d: %s, want %s", what, addr, port, endpoint, got, want)
	}
}

func mustFQDN(text string) policy.FQDN {
	name, pattern := text, ""
	for i := range text {
		if text[i] == '*' {
			name, pattern = "", text
		}
	}
	f, err := policy.NewFQDN(name, pattern)
	if err != nil {
		panic(err)
	}
	return f
}

// rule allows names.
func rule(i int, names ...string) policy.Rule {
	r := policy.Rule{Direction: policy.Egress, DefaultDeny: true, Ref: policy.Ref{Policy: "p", Path: fmt.Sprintf("egress[%d]", i)}}
	for _, n := range names {
		r.Peers = append(r.Peers, mustFQDN(n))
	}
	return r
}

func tableOf(rules ...policy.Rule) *policy.NameTable {
	return policy.NewNameTable(policy.Subject{}, rules, nil, false)
}

// twoEndpoints both have table 1.
func twoEndpoints(rules ...policy.Rule) *redirect.Names {
	n := &redirect.Names{
		Tables: map[uint32]*policy.NameTable{1: tableOf(rules...)}, Rules: map[policy.Ref]uint32{}, Sets: map[policy.SetID]redirect.SetNumber{},
		Endpoints: []redirect.NamedEndpoint{
			{ID: 1, Name: "default/a", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Table: 1},
			{ID: 2, Name: "default/b", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Table: 1},
		},
	}
	if n.Tables[1] == nil { // no rule is about names
		delete(n.Tables, 1)
	} else {
		for i, ref := range n.Tables[1].Refs() {
			n.Rules[ref] = uint32(i + 1)
		}
	}
	n.Prefixes = append(n.Prefixes, policy.Prefixes(rules)...)
	return n
}

func (k *kernel) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}
