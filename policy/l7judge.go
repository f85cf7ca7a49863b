package policy

import (
	"fmt"
	"strconv"
)

// L7Judge answers for an L7Set. It may be used from many goroutines at once.
type L7Judge struct {
	protocol Protocol
	http     []httpMatcher
}

type httpMatcher struct {
	method, path, host pattern
	headers            []header
	ref                Ref
}

// CompileL7 makes a set answer requests. It fails if it cannot judge every rule
// of the set: a rule left out would not be a smaller set but a wrong one.
func CompileL7(set *L7Set) (*L7Judge, error) {
	if set.Protocol != ProtocolHTTP {
		return nil, fmt.Errorf("l7 set: rules for %s cannot be judged", set.Protocol)
	}
	j := &L7Judge{protocol: set.Protocol, http: make([]httpMatcher, 0, len(set.HTTP))}
	for i := range set.HTTP {
		m, err := compileHTTP(&set.HTTP[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", set.HTTP[i].Ref, err)
		}
		j.http = append(j.http, m)
	}
	return j, nil
}

func compileHTTP(rule *HTTPRule) (httpMatcher, error) {
	m := httpMatcher{ref: rule.Ref}
	var err error
	if m.method, err = compilePattern(rule.Method); err != nil {
		return m, fmt.Errorf("method: %w", err)
	}
	if m.path, err = compilePattern(rule.Path); err != nil {
		return m, fmt.Errorf("path: %w", err)
	}
	if m.host, err = compilePattern(rule.Host); err != nil {
		return m, fmt.Errorf("host: %w", err)
	}
	for _, h := range rule.Headers {
		if h.Name == "" {
			return m, fmt.Errorf("headers: a header rule without a name")
		}
		m.headers = append(m.headers, header{name: []byte(h.Name), value: []byte(h.Value)})
	}
	return m, nil
}

// Decide judges one request. What the set does not know is denied.
func (j *L7Judge) Decide(request Request) Decision {
	r, ok := request.(*HTTPRequest)
	if !ok || j.protocol != ProtocolHTTP {
		return Decision{Reason: fmt.Sprintf("a %s request where the rules are for %s", request.Protocol(), j.protocol)}
	}
	for i := range j.http {
		if j.http[i].match(r) {
			return Decision{Verdict: Allow, Rule: j.http[i].ref}
		}
	}
	return j.nearest(r)
}

func (m *httpMatcher) match(r *HTTPRequest) bool {
	if !m.method.match(r.Method) || !m.path.match(r.Path) || !m.host.match(r.Host) {
		return false
	}
	for i := range m.headers {
		if !m.headers[i].match(r) {
			return false
		}
	}
	return true
}

// nearest is the denial of a request that no rule matches. The rule that came
// nearest is the one with most parts that match, and of those the one with
// fewest that do not.
func (j *L7Judge) nearest(r *HTTPRequest) Decision {
	best, bestMet, bestMissed := -1, 0, 0
	for i := range j.http {
		met, missed := j.http[i].count(r)
		if best < 0 || met > bestMet || met == bestMet && missed < bestMissed {
			best, bestMet, bestMissed = i, met, missed
		}
	}
	if best < 0 {
		return Decision{Reason: "there is no rule that allows a request"}
	}
	return Decision{Nearest: j.http[best].ref, Reason: j.http[best].reason(r)}
}

// count says how many of the parts that the rule asks for match, and how many
// do not.
func (m *httpMatcher) count(r *HTTPRequest) (met, missed int) {
	add := func(asked, ok bool) {
		if asked && ok {
			met++
		} else if asked {
			missed++
		}
	}
	add(m.method.text != "", m.method.match(r.Method))
	add(m.path.text != "", m.path.match(r.Path))
	add(m.host.text != "", m.host.match(r.Host))
	for i := range m.headers {
		add(true, m.headers[i].match(r))
	}
	return met, missed
}

// reason says in words what would have had to differ.
func (m *httpMatcher) reason(r *HTTPRequest) string {
	var text string
	add := func(s string) {
		if text != "" {
			text += ", "
		}
		text += s
	}
	part := func(what string, p *pattern, value []byte) {
		if p.match(value) {
			return
		}
		verb := " does not match "
		if p.re == nil {
			verb = " is not "
		}
		add(what + " " + show(value) + verb + show([]byte(p.text)))
	}
	part("method", &m.method, r.Method)
	part("path", &m.path, r.Path)
	part("host", &m.host, r.Host)
	for i := range m.headers {
		h := &m.headers[i]
		switch {
		case h.match(r):
		case h.present(r): // values may be secrets
			add("header " + show(h.name) + " has another value")
		default:
			add("header " + show(h.name) + " is missing")
		}
	}
	return text
}

// show makes a value that a stranger sent fit for a log or a terminal.
func show(value []byte) string {
	const most = 128
	cut := len(value) > most
	if cut {
		value = value[:most]
	}
	s := string(value)
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '"' {
			s = strconv.QuoteToASCII(s)
			break
		}
	}
	if s == "" {
		s = `""`
	}
	if cut {
		s += "..."
	}
	return s
}
