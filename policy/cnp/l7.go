package cnp

import (
	"fmt"
	"strings"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// l7Kind is one kind of L7 rules, and how one rule is read.
type l7Kind struct {
	field    string
	protocol policy.Protocol
	read     func(*reader, manifest.Value, policy.Ref, *policy.L7Rules)
}

func l7Kinds() []l7Kind {
	return []l7Kind{
		{"http", policy.ProtocolHTTP, (*reader).http},
		{"grpc", policy.ProtocolHTTP, (*reader).grpc},
		{"kafka", policy.ProtocolKafka, (*reader).kafka},
		{"dns", policy.ProtocolDNS, (*reader).dns},
	}
}

// l7 reads the L7 rules of a port. Empty ones are none; to deny they would deny
// all, which nobody means who writes them so.
func (r *reader) l7(v manifest.Value, ref policy.Ref, s section) *policy.L7Rules {
	var known []string
	for _, k := range l7Kinds() {
		known = append(known, k.field)
	}
	fields := v.Object(known, refusedL7)
	var l7 *policy.L7Rules
	var filled []string
	for _, k := range l7Kinds() {
		list, ok := fields[k.field]
		if !ok {
			continue
		}
		items := list.List()
		if list.Len() == 0 {
			if s.deny {
				list.Fail("is empty; write rules, or delete it to deny the whole port")
			} else {
				list.Warn("is empty and allows every request; write rules, [{}] to only see requests")
			}
			continue
		}
		filled = append(filled, k.field)
		if l7 == nil {
			l7 = &policy.L7Rules{Protocol: k.protocol}
		} else if l7.Protocol != k.protocol {
			v.Fail("has %s; write one kind of rules for a port", strings.Join(filled, " and "))
		}
		if k.protocol == policy.ProtocolDNS && s.direction == policy.Ingress {
			list.Fail("is for egress only; write it under egress")
		}
		for i, item := range items {
			k.read(r, item, policy.Ref{Policy: ref.Policy, Path: fmt.Sprintf("%s.%s[%d]", ref.Path, k.field, i)}, l7)
			if n := len(l7.HTTP); s.deny && n > 0 && len(l7.HTTP[n-1].Edits) > 0 {
				item.Fail("changes headers of requests that are denied; delete mismatch")
			}
		}
	}
	if s.deny && len(fields) == 0 {
		v.Fail("is empty; write rules, or delete it to deny the whole port")
	}
	return l7
}

// dns reads one DNS rule.
func (r *reader) dns(v manifest.Value, ref policy.Ref, l7 *policy.L7Rules) {
	name, pattern, more, ok := dnsNameWith(v, "queryTypes")
	if !ok {
		return
	}
	rule := policy.DNSRule{Name: name, Pattern: pattern, Ref: ref}
	if types, there := more["queryTypes"]; there {
		list := types.List()
		if len(list) == 0 {
			types.Fail("is empty; write types as A and AAAA, or delete it for all")
		}
		for _, item := range list {
			text, ok := item.Text()
			if !ok {
				continue
			}
			typ, err := policy.ParseDNSType(text)
			if err != nil {
				item.Fail("%v", err)
			}
			rule.Types = append(rule.Types, typ)
		}
	}
	l7.DNS = append(l7.DNS, rule)
}

// grpc reads one rule for gRPC.
func (r *reader) grpc(v manifest.Value, ref policy.Ref, l7 *policy.L7Rules) {
	fields := v.Object([]string{"service", "method"}, nil)
	rule := policy.GRPCRule{Ref: ref}
	if service, ok := fields["service"]; ok {
		if rule.Service, ok = service.Text(); ok && !isWord(rule.Service, "_.*") {
			service.Fail("%q is not a service; write it with its package, as shop.v1.Orders, '*' for any characters", rule.Service)
		}
	}
	if method, ok := fields["method"]; ok {
		if rule.Method, ok = method.Text(); ok && !isWord(rule.Method, "_*") {
			method.Fail("%q is not a method; write its name, as GetOrder, '*' for any characters", rule.Method)
		}
	}
	l7.GRPC = append(l7.GRPC, rule)
}

// isWord: letters, digits and what more may be there.
func isWord(s, more string) bool {
	for _, c := range s {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && !strings.ContainsRune(more, c) {
			return false
		}
	}
	return s != ""
}

// checkProtocols refuses two kinds of L7 rules for one port of one policy.
func checkProtocols(d *manifest.Document, rules []policy.Rule) {
	if conflict := policy.ProtocolConflict(rules); conflict != nil {
		d.Fail("spec", "%v; write one kind of rules for a port", conflict)
	}
}
