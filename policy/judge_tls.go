package policy

// newTLSIndex finds rules for server names as those for questions are found: they have
// the same patterns.
func newTLSIndex(rules []TLSRule) (dnsIndex, error) {
	names := make([]DNSRule, len(rules))
	for i, r := range rules {
		names[i] = DNSRule{Pattern: r.ServerName, Ref: r.Ref}
	}
	return newDNSIndex(names)
}

func (j *rulesJudge) decideTLS(r *TLSRequest) Decision {
	rules := j.tls.rules
	name := NormalName(r.ServerName)
	i := int32(-1)
	if name != "" {
		i = j.tls.trie.find(rules, name, 0)
	} else if every := j.tls.trie.every; len(every) > 0 { // there is no name to match
		i = every[0]
	}
	switch {
	case i >= 0:
		return Decision{Verdict: Allow, Rule: rules[i].rule.Ref}
	case len(rules) == 0:
		return Decision{Reason: "there is no rule that allows a server name"}
	}
	first := rules[0].rule
	reason := "server name " + show([]byte(r.ServerName)) + " does not match " + show([]byte(first.Pattern))
	if name == "" {
		reason = "the client names no server"
	}
	return Decision{Nearest: first.Ref, Reason: reason}
}
