package fqdn

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
)

// nowhere is a kernel that remembers nothing.
type nowhere struct{}

func (nowhere) NameTable(netip.Addr) (uint32, error)                                    { return 0, nil }
func (nowhere) Put(k []policy.NameKey, _ []policy.Identity) (int, error)                { return len(k), nil }
func (nowhere) Delete([]policy.NameKey) error                                           { return nil }
func (nowhere) All(func(policy.NameKey, policy.Identity) bool) error                    { return nil }
func (nowhere) SyncRules(policy.NameRulesKey, policy.NameRules, policy.NameRules) error { return nil }
func (nowhere) Rules() (map[policy.NameRulesKey]policy.NameRules, error)                { return nil, nil }
func (nowhere) Room() int                                                               { return 1 << 20 }

// most is how many bytes an address may take in the process.
const most = 250

// TestMillion learns 100,000 names of 10 addresses each, and measures the memory.
func TestMillion(t *testing.T) {
	s, err := New(Config{Maps: nowhere{}, Gate: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	defer end()
	go s.Run(ctx)
	n := twoEndpoints(rule(0, "*.example.com"))
	n.Limits.PerEndpoint = 1_000_000
	if err := s.Update(ctx, n); err != nil {
		t.Fatal(err)
	}
	before := heap()
	start := time.Now()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 1000)
	for i := range 100_000 {
		a := Answer{Client: netip.MustParseAddr("10.0.0.1"), Name: fmt.Sprintf("host-%d.example.com", i), At: time.Now()}
		for j := range 10 {
			n := i*10 + j
			a.Addresses = append(a.Addresses, Address{netip.AddrFrom4([4]byte{100, byte(n >> 16), byte(n >> 8), byte(n)}), time.Hour})
		}
		wg.Add(1)
		slots <- struct{}{}
		s.Learn(a, func(err error) {
			if err != nil && !t.Failed() {
				t.Errorf("%s: %v", a.Name, err)
			}
			<-slots
			wg.Done()
		})
	}
	wg.Wait()
	took := time.Since(start)
	after := heap()
	stats, err := s.Stats(ctx)
	if err != nil || stats.Addresses != 1_000_000 || stats.InKernel != 1_000_000 {
		t.Fatalf("%+v, %v", stats, err)
	}
	each := (after - before) / 1_000_000
	t.Logf("%d MB for 1,000,000 addresses of 100,000 names, %d bytes each; %s, %.1f µs an answer", (after-before)>>20, each, took.Round(time.Millisecond), float64(took.Microseconds())/1e5)
	if each > most {
		t.Errorf("an address takes %d bytes, want at most %d", each, most)
	}
	start = time.Now()
	n = twoEndpoints(rule(0, "*.example.com"), rule(1, "host-1.example.com"))
	n.Limits.PerEndpoint = 1_000_000
	if err := s.Update(ctx, n); err != nil {
		t.Fatal(err)
	}
	t.Logf("another rule is in force after %s", time.Since(start).Round(time.Millisecond))
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
