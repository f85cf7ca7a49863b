package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/policy/automaton"
)

// editor puts headers right as the rules that match a request say: all of them, in
// order, as Cilium does. Most sets have no such rule.
type editor struct {
	rule  uint32
	edits []HeaderEdit
}

// unEditable are fields that say where a message ends and where it goes, or are
// about the connection alone.
var unEditable = []string{
	"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te", "trailer", "keep-alive", "proxy-connection", "http2-settings",
}

// ValidateEdit checks that a header may be changed on its way.
func ValidateEdit(name string) error {
	if name == "" || name[0] == ':' || slices.ContainsFunc(unEditable, func(s string) bool { return sameName(s, name) }) {
		return fmt.Errorf("%q cannot be changed on the way, it says where requests go or end; choose another header", name)
	}
	return nil
}

func compileEdits(rules []HTTPRule) (list []editor, err error) {
	for i := range rules {
		for _, e := range rules[i].Edits {
			if err := ValidateEdit(e.Name); err != nil && e.Action != HeaderLog {
				return nil, fmt.Errorf("%s: %w", rules[i].Ref, err)
			}
			if e.Value != "" && !ValidHeaderValue(e.Value) {
				return nil, fmt.Errorf("%s: the value of header %s cannot be sent", rules[i].Ref, e.Name)
			}
		}
		if len(rules[i].Edits) > 0 {
			list = append(list, editor{uint32(i), rules[i].Edits})
		}
	}
	return list, nil
}

// edit makes the decision about an allowed request that of one with its headers
// put right.
func (j *L7Judge) edit(d *Decision, r *HTTPRequest, found *[httpFields]automaton.Matches) {
	work := &HTTPRequest{Host: r.Host, Headers: r.Headers}
	var notes []string
	for _, rule := range j.edits {
		if !j.http.match(rule.rule, r, found) {
			continue
		}
		for i := range rule.edits {
			if note, changed := work.put(&rule.edits[i], d.Edited); note != "" {
				d.Edited = d.Edited || changed
				notes = append(notes, note)
			}
		}
	}
	if d.Edited {
		d.Headers = work.Headers
	}
	d.Reason = strings.Join(notes, ", ")
}

// put carries out one edit. Values, which may be secrets, stay out of the note. The
// headers are copied before the first change.
func (r *HTTPRequest) put(e *HeaderEdit, copied bool) (note string, changed bool) {
	h := header{name: []byte(e.Name), value: []byte(e.Value)}
	alike := (e.Action == HeaderDelete || e.Action == HeaderReplace) && r.alike(h.name)
	had := h.present(r)
	switch {
	case h.match(r) && !alike:
		return "", false
	case alike:
		note = "header " + show(h.name) + " has a double"
	case had:
		note = "header " + show(h.name) + " has another value"
	default:
		note = "header " + show(h.name) + " is missing"
	}
	if e.Action == HeaderLog || e.Action == HeaderDelete && !had && !alike {
		return note, false
	}
	headers := r.Headers
	if !copied {
		headers = slices.Clone(headers)
	}
	if e.Action != HeaderAdd {
		headers = slices.DeleteFunc(headers, func(x HTTPHeader) bool { return sameName(string(x.Name), e.Name) })
	}
	if e.Action != HeaderDelete {
		headers = append(headers, HTTPHeader{h.name, h.value})
	}
	r.Headers = headers
	return note + ": " + e.Action.done(), true
}

// alike reports whether there is a header of another name that some servers take
// for this one.
func (r *HTTPRequest) alike(name []byte) bool {
	return slices.ContainsFunc(r.Headers, func(x HTTPHeader) bool {
		return !bytes.EqualFold(x.Name, name) && sameName(string(x.Name), string(name))
	})
}

func (a HeaderAction) done() string {
	switch a {
	case HeaderAdd:
		return "added"
	case HeaderDelete:
		return "deleted"
	}
	return "replaced"
}

// sameName reports whether a server may take two names for the same: without
// case, and many put both - and _ into one variable.
func sameName(a, b string) bool {
	if len(a) != len(b) {
		return strings.EqualFold(a, b)
	}
	return bytes.EqualFold([]byte(strings.ReplaceAll(a, "_", "-")), []byte(strings.ReplaceAll(b, "_", "-")))
}
