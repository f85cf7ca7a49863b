package policy

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// at looks a port up by longest match, and reports whether it is covered.
func at(prefixes []portPrefix, port uint16) (Entry, bool) {
	best, found := portPrefix{}, false
	for _, p := range prefixes {
		if port>>(16-p.bits)<<(16-p.bits) == p.port && (!found || p.bits >= best.bits) {
			best, found = p, true
		}
	}
	return best.entry, found
}

func (m portMap) at(port uint16) Entry {
	i := slices.IndexFunc(m, func(r portRun) bool { return port <= r.last })
	return m[i].entry
}

func ports(allowed ...[2]uint16) portMap {
	var m portMap
	next := 0
	for _, a := range allowed {
		if int(a[0]) > next {
			m = append(m, portRun{a[0] - 1, Entry{}})
		}
		m = append(m, portRun{a[1], Entry{Verdict: Allow, Rule: 1}})
		next = int(a[1]) + 1
	}
	if next <= 65535 {
		m = append(m, portRun{65535, Entry{}})
	}
	return m
}

func TestCoverIsSmall(t *testing.T) {
	denied := constant(Entry{})
	for _, tt := range []struct {
		name           string
		want, fallback portMap
		n              int
	}{
		{"nothing", ports(), denied, 0},
		{"everything", ports([2]uint16{0, 65535}), denied, 1},
		{"one port", ports([2]uint16{80, 80}), denied, 1},
		{"all but one", ports([2]uint16{0, 79}, [2]uint16{81, 65535}), denied, 2},
		{"all but the first", ports([2]uint16{1, 65535}), denied, 2},
		{"all but the last", ports([2]uint16{0, 65534}), denied, 2},
		{"aligned range", ports([2]uint16{4096, 8191}), denied, 1},
		{"range", ports([2]uint16{80, 444}), denied, 6},
		{"as the fallback", ports([2]uint16{80, 80}), ports([2]uint16{80, 80}), 0},
		{"one more than the fallback", ports([2]uint16{80, 80}, [2]uint16{443, 443}), ports([2]uint16{80, 80}), 1},
		{"one less than the fallback", ports([2]uint16{80, 80}), ports([2]uint16{80, 80}, [2]uint16{443, 443}), 1},
	} {
		if got := cover(tt.want, tt.fallback); len(got) > tt.n {
			t.Errorf("%s: %d entries, want %d: %v", tt.name, len(got), tt.n, got)
		}
	}
}

func TestCoverIsExact(t *testing.T) {
	r := newRand(t)
	random := func() portMap {
		var m portMap
		var lasts []uint16
		for range r.IntN(12) {
			lasts = append(lasts, uint16(r.IntN(65535)))
		}
		slices.Sort(lasts)
		for _, last := range append(slices.Compact(lasts), 65535) {
			m = append(m, portRun{last, Entry{Verdict: Verdict(r.IntN(3)), Rule: RuleID(r.IntN(2))}})
		}
		return m
	}
	for range 60 {
		want, fallback := random(), random()
		if r.IntN(4) == 0 {
			fallback = constant(Entry{})
		}
		got := cover(want, fallback)
		for port := 0; port <= 65535; port += 1 + r.IntN(3) {
			e, covered := at(got, uint16(port))
			if !covered {
				e = fallback.at(uint16(port))
			}
			if e != want.at(uint16(port)) {
				t.Fatalf("port %d: %v, want %v\nwant %v\nfallback %v\ngot %v", port, e, want.at(uint16(port)), want, fallback, got)
			}
		}
	}
}

func BenchmarkCover(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	var m portMap
	for i := range 500 {
		m = append(m, portRun{uint16(i*130 + r.IntN(130)), Entry{Verdict: Verdict(i % 2)}})
	}
	m = append(m, portRun{65535, Entry{}})
	for b.Loop() {
		cover(m, constant(Entry{}))
	}
}
