package xds

import (
	"slices"
	"strings"

	xdscore "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/headgate/headgate/policy"
)

// nameRules are the server names that a set allows, as expressions of whole names. Envoy's
// own server_names know no pattern within a label, and take "*.example.com" for any number
// of labels, which rules do not. Nil: whoever says hello may pass, by whatever name.
type nameRules []string

// longestExpression bounds how much one expression holds: RE2 answers from a table that it
// bounds too.
const longestExpression = 16 << 10

// namesOf translates the server names of a set.
func namesOf(set *policy.L7Set) nameRules {
	if set.Protocol != policy.ProtocolTLS && len(set.TLS) == 0 {
		return nil
	}
	out := nameRules{}
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			out = append(out, `(?i:`+b.String()+`)`)
			b.Reset()
		}
	}
	for _, r := range set.TLS {
		if r.ServerName == "" {
			return nil
		}
		expr := nameExpression(r.ServerName)
		if b.Len()+len(expr) > longestExpression {
			flush()
		}
		if b.Len() > 0 {
			b.WriteByte('|')
		}
		b.WriteString(expr)
	}
	flush()
	return out
}

// nameChar is what a label is made of.
const nameChar = `[-_a-zA-Z0-9]`

// nameExpression is a policy.DNSPattern as an expression. No label of a name is empty, and
// none has a dot behind it in a hello (RFC 6066).
func nameExpression(pattern string) string {
	text := policy.NormalName(pattern)
	const label = nameChar + `+`
	if strings.Trim(text, "*") == "" {
		return label + `(?:\.` + label + `)*`
	}
	before := ""
	if rest := strings.TrimLeft(text, "*"); len(text)-len(rest) > 1 && rest[0] == '.' {
		before, text = `(?:`+label+`\.)+`, rest[1:]
	}
	var labels []string
	for l := range strings.SplitSeq(text, ".") {
		if strings.Trim(l, "*") == "" {
			labels = append(labels, label)
			continue
		}
		parts := strings.Split(l, "*")
		for i, p := range parts {
			parts[i] = quote(p)
		}
		labels = append(labels, strings.Join(parts, nameChar+`*`))
	}
	return before + strings.Join(labels, `\.`)
}

// permission is about requests on connections whose client gave such a name.
func (r nameRules) permission() *rbacv3.Permission {
	some := []*rbacv3.Permission{}
	for _, expr := range r {
		some = append(some, &rbacv3.Permission{Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: expression(expr)}})
	}
	if len(some) == 0 {
		return not(allOf(nil))
	}
	return anyOf(some...)
}

type predicate = xdsmatcher.Matcher_MatcherList_Predicate

// predicate is about hellos with such a name.
func (r nameRules) predicate(b *builder) *predicate {
	some := []*predicate{}
	for _, expr := range r {
		some = append(some, b.asks("server_name", &networkinputsv3.ServerNameInput{}, &xdsmatcher.StringMatcher{
			MatchPattern: &xdsmatcher.StringMatcher_SafeRegex{SafeRegex: &xdsmatcher.RegexMatcher{
				EngineType: &xdsmatcher.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcher.RegexMatcher_GoogleRE2{}}, Regex: expr,
			}},
		}))
	}
	switch len(some) {
	case 0:
		return &predicate{MatchType: &xdsmatcher.Matcher_MatcherList_Predicate_NotMatcher{NotMatcher: b.helloes()}}
	case 1:
		return some[0]
	}
	return &predicate{MatchType: &xdsmatcher.Matcher_MatcherList_Predicate_OrMatcher{
		OrMatcher: &xdsmatcher.Matcher_MatcherList_Predicate_PredicateList{Predicate: some},
	}}
}

// helloes: what came is TLS.
func (b *builder) helloes() *predicate {
	return b.asks("transport_protocol", &networkinputsv3.TransportProtocolInput{}, &xdsmatcher.StringMatcher{
		MatchPattern: &xdsmatcher.StringMatcher_Exact{Exact: "tls"},
	})
}

func (b *builder) asks(name string, input proto.Message, value *xdsmatcher.StringMatcher) *predicate {
	return &predicate{MatchType: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate{
			Input:   &xdscore.TypedExtensionConfig{Name: name, TypedConfig: b.pack(input)},
			Matcher: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: value},
		},
	}}
}

// goesTo is what becomes of a connection: the name of a filter chain.
func (b *builder) goesTo(chain string) *xdsmatcher.Matcher_OnMatch {
	return &xdsmatcher.Matcher_OnMatch{OnMatch: &xdsmatcher.Matcher_OnMatch_Action{
		Action: &xdscore.TypedExtensionConfig{Name: "chain", TypedConfig: b.pack(wrapperspb.String(chain))},
	}}
}

// offers: the client takes HTTP/2, by ALPN. Envoy writes what it takes as 'h2','http/1.1'.
func (b *builder) offersHTTP2() *predicate {
	return b.asks("application_protocol", &networkinputsv3.ApplicationProtocolInput{}, &xdsmatcher.StringMatcher{
		MatchPattern: &xdsmatcher.StringMatcher_Contains{Contains: "'h2'"},
	})
}

func both(all ...*predicate) *predicate {
	if len(all) == 1 {
		return all[0]
	}
	return &predicate{MatchType: &xdsmatcher.Matcher_MatcherList_Predicate_AndMatcher{
		AndMatcher: &xdsmatcher.Matcher_MatcherList_Predicate_PredicateList{Predicate: all},
	}}
}

// sort has connections go to a filter chain by what they begin with: TLS with a name that
// all sides allow, TLS with another, and what is not TLS.
func (b *builder) sort(plan *tlsPlan, other string) *xdsmatcher.Matcher {
	all := []*predicate{b.helloes()}
	for _, names := range plan.names {
		if names != nil {
			all = append(all, names.predicate(b))
		}
	}
	var list []*xdsmatcher.Matcher_MatcherList_FieldMatcher
	add := func(p *predicate, chain string) {
		list = append(list, &xdsmatcher.Matcher_MatcherList_FieldMatcher{Predicate: p, OnMatch: b.goesTo(chain)})
	}
	if plan.chooses() {
		add(both(append(slices.Clone(all), b.offersHTTP2())...), chainCarried2)
	}
	add(both(all...), chainCarried)
	if plan.named() {
		add(b.helloes(), chainRefused)
	}
	return &xdsmatcher.Matcher{
		MatcherType: &xdsmatcher.Matcher_MatcherList_{MatcherList: &xdsmatcher.Matcher_MatcherList{Matchers: list}},
		OnNoMatch:   b.goesTo(other),
	}
}
