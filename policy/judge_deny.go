package policy

import "bytes"

// A rule that denies must hold for whatever a server takes for the same thing; one
// that allows holds for nothing but what it says. So denies are asked also about
// the host in lower case, without a dot at its end and without its port, about the
// path without parameters (/a;x/b), and about each of the values of a header.

// compileDeny compiles rules that deny.
func compileDeny(rules []HTTPRule) (*L7Judge, error) {
	folded := make([]HTTPRule, len(rules))
	for i, r := range rules {
		if r.Edits = nil; r.Host != "" {
			r.Host = "(?i:" + r.Host + ")"
		}
		folded[i] = r
	}
	index, err := newHTTPIndex(folded, true)
	if err != nil {
		return nil, err
	}
	return &L7Judge{protocol: ProtocolHTTP, http: index, deny: true}, nil
}

// denies says which rule denies the request, if one does.
func (j *rulesJudge) denies(request Request) (Decision, bool) {
	if k, ok := request.(*KafkaRequest); ok && j.protocol == ProtocolKafka {
		return j.deniesKafka(k)
	}
	d, known := j.decide(request)
	if known && d.Verdict == Allow {
		return d, true
	}
	r, ok := request.(*HTTPRequest)
	if !ok || !known {
		return Decision{}, false
	}
	hosts, paths := hostsAs(r.Host), pathsAs(r.Path)
	for _, host := range hosts {
		for _, path := range paths {
			other := *r
			other.Host, other.Path = host, path
			if d, _ := j.decide(&other); d.Verdict == Allow {
				return d, true
			}
		}
	}
	return Decision{}, false
}

// hostsAs lists how a server may read a host.
func hostsAs(host []byte) [][]byte {
	list := [][]byte{host}
	name, port := host, []byte(nil)
	if i := bytes.LastIndexByte(host, ':'); i > bytes.LastIndexByte(host, ']') {
		name, port = host[:i], host[i:]
	}
	bare := bytes.TrimRight(name, ".")
	if len(port) > 0 || len(bare) != len(name) {
		list = append(list, bare, append(bytes.Clone(bare), port...))
	}
	return list
}

// pathsAs lists how a server may read a path.
func pathsAs(path []byte) [][]byte {
	list := [][]byte{path}
	end := len(path)
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		end = i
	}
	if bytes.IndexByte(path[:end], ';') < 0 {
		return list
	}
	bare := make([]byte, 0, len(path))
	for i := 0; i < end; i++ {
		if path[i] == ';' {
			for i+1 < end && path[i+1] != '/' {
				i++
			}
			continue
		}
		bare = append(bare, path[i])
	}
	return append(list, append(bare, path[end:]...))
}

// matchAny is match for a rule that denies: one value of several is enough, and so
// is one of a list; a name that servers take for the same is the same.
func (h *header) matchAny(r *HTTPRequest) bool {
	probe := header{name: h.name, value: h.value}
	if probe.match(r) {
		return true
	}
	for i := range r.Headers {
		if !sameName(string(r.Headers[i].Name), string(h.name)) {
			continue
		}
		if len(h.value) == 0 || bytes.Equal(r.Headers[i].Value, h.value) {
			return true
		}
		for _, item := range bytes.Split(r.Headers[i].Value, comma) {
			if bytes.Equal(bytes.TrimSpace(item), h.value) {
				return true
			}
		}
	}
	return false
}
