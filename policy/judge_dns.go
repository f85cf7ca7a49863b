package policy

import "fmt"

type dnsMatcher struct {
	rule    *DNSRule
	name    string
	pattern DNSPattern
}

func compileDNS(rules []DNSRule) ([]dnsMatcher, error) {
	list := make([]dnsMatcher, len(rules))
	for i := range rules {
		r := &rules[i]
		list[i] = dnsMatcher{rule: r, name: NormalName(r.Name)}
		var err error
		switch {
		case r.Name != "" && r.Pattern != "":
			err = fmt.Errorf("both a name and a pattern")
		case r.Pattern != "":
			list[i].pattern, err = CompileDNSPattern(r.Pattern)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Ref, err)
		}
	}
	return list, nil
}

func (m *dnsMatcher) match(name string) bool {
	switch {
	case m.rule.Pattern != "":
		return m.pattern.Match(name)
	case m.rule.Name != "":
		return NormalName(name) == m.name
	}
	return true
}

func (j *rulesJudge) decideDNS(r *DNSRequest) Decision {
	for i := range j.dns {
		if j.dns[i].match(r.Name) {
			return Decision{Verdict: Allow, Rule: j.dns[i].rule.Ref}
		}
	}
	if len(j.dns) == 0 {
		return Decision{Reason: "there is no rule that allows a question"}
	}
	first := j.dns[0].rule
	return Decision{Nearest: first.Ref, Reason: "name " + show([]byte(r.Name)) + " does not match " + show([]byte(first.Name+first.Pattern))}
}

type tlsMatcher struct {
	rule    *TLSRule
	pattern DNSPattern
}

func compileTLS(rules []TLSRule) ([]tlsMatcher, error) {
	list := make([]tlsMatcher, len(rules))
	for i := range rules {
		list[i].rule = &rules[i]
		if rules[i].ServerName == "" {
			continue
		}
		var err error
		if list[i].pattern, err = CompileDNSPattern(rules[i].ServerName); err != nil {
			return nil, fmt.Errorf("%s: %w", rules[i].Ref, err)
		}
	}
	return list, nil
}

func (j *rulesJudge) decideTLS(r *TLSRequest) Decision {
	for i := range j.tls {
		m := &j.tls[i]
		if m.rule.ServerName == "" || r.ServerName != "" && NormalName(r.ServerName) != "" && m.pattern.Match(r.ServerName) {
			return Decision{Verdict: Allow, Rule: m.rule.Ref}
		}
	}
	switch {
	case len(j.tls) == 0:
		return Decision{Reason: "there is no rule that allows a server name"}
	case r.ServerName == "":
		return Decision{Nearest: j.tls[0].rule.Ref, Reason: "the client names no server"}
	}
	first := j.tls[0].rule
	return Decision{Nearest: first.Ref, Reason: "server name " + show([]byte(r.ServerName)) + " does not match " + show([]byte(first.ServerName))}
}
