package verdict

import (
	"fmt"

	"github.com/headgate/headgate/policy"
)

// changes says what a rule of a set would have to allow for a request to pass.
// Each part of the rule is asked by itself, by the same code as the whole.
func changes(set *policy.L7Set, nearest policy.Ref, request policy.Request) []string {
	at := " in " + nearest.String()
	switch r := request.(type) {
	case *policy.HTTPRequest:
		for _, rule := range set.HTTP {
			if rule.Ref == nearest {
				return httpChanges(rule, r, at)
			}
		}
	case *policy.GRPCRequest:
		return []string{fmt.Sprintf("allow the call %s/%s%s", r.Service, r.Method, at)}
	case *policy.KafkaRequest:
		for _, rule := range set.Kafka {
			if rule.Ref == nearest {
				return kafkaChanges(rule, r, at)
			}
		}
	case *policy.DNSRequest:
		return []string{fmt.Sprintf("add matchName: %s beside%s", policy.NormalName(r.Name), at[len(" in"):])}
	case *policy.TLSRequest:
		if r.ServerName == "" {
			return []string{"have the client send a server name (SNI)"}
		}
		return []string{fmt.Sprintf("add %q to serverNames beside%s", r.ServerName, at[len(" in"):])}
	}
	return nil
}

func httpChanges(rule policy.HTTPRule, r *policy.HTTPRequest, at string) []string {
	passes := func(part policy.HTTPRule) bool {
		if part.Method == "" && string(r.Method) == "CONNECT" { // which must be named
			part.Method = "CONNECT"
		}
		judge, err := policy.CompileL7(&policy.L7Set{Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{part}})
		return err == nil && judge.Decide(r).Verdict == policy.Allow
	}
	var list []string
	for _, part := range []struct {
		name, value string
		rule        policy.HTTPRule
	}{
		{"method", string(r.Method), policy.HTTPRule{Method: rule.Method}},
		{"path", string(r.Path), policy.HTTPRule{Path: rule.Path}},
		{"host", string(r.Host), policy.HTTPRule{Host: rule.Host}},
	} {
		if !passes(part.rule) {
			list = append(list, fmt.Sprintf("allow %s %s%s", part.name, part.value, at))
		}
	}
	for _, h := range rule.Headers {
		if passes(policy.HTTPRule{Headers: []policy.HeaderRule{h}}) {
			continue
		}
		change := fmt.Sprintf("send header %s", h.Name)
		if passes(policy.HTTPRule{Headers: []policy.HeaderRule{{Name: h.Name}}}) { // its value may be a secret
			change += " with the value that the rule has"
		}
		list = append(list, change+", or drop it"+at)
	}
	return list
}
