package policy

import "slices"

// Secrets returns the values that the set's rules refer to, as far as known.
func (s *L7Set) Secrets(known map[SecretRef]string) map[SecretRef]string {
	used := map[SecretRef]string{}
	for _, ref := range s.SecretRefs() {
		if value, ok := known[ref]; ok {
			used[ref] = value
		}
	}
	return used
}

// SecretRefs lists the secrets that the set's rules refer to.
func (s *L7Set) SecretRefs() []SecretRef {
	if s == nil {
		return nil
	}
	var refs []SecretRef
	add := func(rules []HTTPRule) {
		for i := range rules {
			for _, h := range rules[i].Secrets {
				refs = append(refs, h.Secret)
			}
			for _, e := range rules[i].Edits {
				if e.Secret != nil {
					refs = append(refs, *e.Secret)
				}
			}
		}
	}
	add(s.HTTP)
	refs = append(refs, s.Ends.Refs()...)
	if s.Deny != nil {
		add(s.Deny.HTTP)
	}
	return append(refs, s.Audit.SecretRefs()...)
}

// Reveal returns the set with values in place of the secrets that are known. Of
// the others a value that stands beside them is used; where there is none the rule
// matches nothing (a deny matches any value).
func (s *L7Set) Reveal(known map[SecretRef]string) *L7Set {
	if s == nil || len(s.SecretRefs()) == 0 {
		return s
	}
	out := *s
	out.HTTP = reveal(s.HTTP, known)
	if s.Deny != nil {
		deny := *s.Deny
		deny.HTTP = reveal(s.Deny.HTTP, known)
		out.Deny = &deny
	}
	out.Audit = s.Audit.Reveal(known)
	return &out
}

func reveal(rules []HTTPRule, known map[SecretRef]string) []HTTPRule {
	rules = slices.Clone(rules)
	for i := range rules {
		r := &rules[i]
		r.Headers, r.Edits = slices.Clone(r.Headers), slices.Clone(r.Edits)
		var unknown []SecretHeader
		for _, h := range r.Secrets {
			if value := known[h.Secret]; ValidHeaderValue(value) {
				r.Headers = append(r.Headers, HeaderRule{Name: h.Name, Value: value})
			} else {
				unknown = append(unknown, h)
			}
		}
		for k := range r.Edits {
			e := &r.Edits[k]
			if e.Secret == nil {
				continue
			}
			value := known[*e.Secret]
			switch {
			case ValidHeaderValue(value):
				e.Value = value
			case e.Value == "":
				unknown = append(unknown, SecretHeader{Name: e.Name, Secret: *e.Secret})
			}
			e.Secret = nil
		}
		r.Secrets = unknown
	}
	return rules
}

// ValidHeaderValue reports whether a header can have the value, which is not empty.
func ValidHeaderValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return value != "" && value[0] > ' ' && value[len(value)-1] > ' '
}
