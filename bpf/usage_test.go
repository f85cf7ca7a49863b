package bpf

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
