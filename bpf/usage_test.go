package bpf

import "github.com/cilium/ebpf"

// usage is Usage by name.
func (l *lab) usage() map[string]Usage {
	l.Helper()
	all, err := l.g.Usage()
	l.must(err)
	out := map[string]Usage{}
	for _, u := range all {
		out[u.Map] = u
	}
	return out
}

// entries counts them one by one.
func entries(m *ebpf.Map) (int, error) {
	n := 0
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	it := m.Iterate()
	for it.Next(&key, &value) {
		n++
	}
	return n, it.Err()
}
