package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/headgate/headgate/policy/automaton"
)

// L7Judge answers for an L7Set. It may be used from many goroutines at once.
type L7Judge struct {
	protocol Protocol
	http     *httpIndex
	connect  *L7Judge // what may open a tunnel; nil: nothing
	deny     bool
	edits    []editor
}

// CompileL7 makes a set answer requests. It fails if it cannot judge every rule
// of the set: a rule left out would not be a smaller set but a wrong one.
func CompileL7(set *L7Set) (*L7Judge, error) {
	if set.Protocol != ProtocolHTTP {
		return nil, fmt.Errorf("l7 set: rules for %s cannot be judged", set.Protocol)
	}
	index, err := newHTTPIndex(set.HTTP, false)
	if err != nil {
		return nil, err
	}
	j := &L7Judge{protocol: set.Protocol, http: index}
	if j.edits, err = compileEdits(set.HTTP); err != nil {
		return nil, err
	}
	var named []HTTPRule
	for _, rule := range set.HTTP {
		if strings.Contains(rule.Method, connectMethod) {
			named = append(named, rule)
		}
	}
	if len(named) == 0 || len(named) == len(set.HTTP) {
		if len(named) > 0 {
			j.connect = j
		}
		return j, nil
	}
	j.connect, err = CompileL7(&L7Set{Protocol: ProtocolHTTP, HTTP: named})
	return j, err
}

// connectMethod asks for a tunnel, of which nothing will be judged. So it is
// allowed only by rules that name it.
const connectMethod = "CONNECT"

// Decide judges one request. What the set does not know is denied. Of several
// rules that allow a request, the first in the set's order is named.
func (j *L7Judge) Decide(request Request) Decision {
	r, ok := request.(*HTTPRequest)
	if !ok || j.protocol != ProtocolHTTP {
		return Decision{Reason: fmt.Sprintf("a %s request where the rules are for %s", request.Protocol(), j.protocol)}
	}
	if string(r.Method) == connectMethod && !j.deny && j.connect != j {
		if j.connect == nil {
			return Decision{Reason: "no rule names the method CONNECT, without which there are no tunnels"}
		}
		return j.connect.Decide(r)
	}
	found := j.http.find(r)
	if i := j.http.first(r, &found); i >= 0 {
		d := Decision{Verdict: Allow, Rule: j.http.rules[i].ref}
		if len(j.edits) > 0 {
			j.edit(&d, r, &found)
		}
		return d
	}
	i := j.http.nearest(r, &found)
	if i < 0 {
		return Decision{Reason: "there is no rule that allows a request"}
	}
	return Decision{Nearest: j.http.rules[i].ref, Reason: j.http.reason(i, r, &found)}
}

// reason says in words what would have had to differ.
func (x *httpIndex) reason(i int, r *HTTPRequest, found *[httpFields]automaton.Matches) string {
	var text string
	add := func(s string) {
		if text != "" {
			text += ", "
		}
		text += s
	}
	rule := &x.rules[i]
	for f := range httpFields {
		id := rule.want[f]
		if has(&found[f], id) {
			continue
		}
		verb := " does not match "
		if x.fields[f].plain[id] {
			verb = " is not "
		}
		add(f.String() + " " + show(f.of(r)) + verb + show([]byte(x.fields[f].texts[id])))
	}
	for i := range rule.headers {
		h := &rule.headers[i]
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
