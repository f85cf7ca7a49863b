package xds

import (
	"fmt"
	"regexp"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/headgate/headgate/policy"
)

// A rule that denies holds for whatever a server takes for the same (docs/http.md). Envoy
// matches what was sent and no variants of it, so the script lists these in the metadata
// of the request, and rules that deny match the lists.

// readingSpace is the metadata that the script writes: what a request may be taken for.
const readingSpace = "headgate.reading"

// unreadRule denies what the script did not read.
const unreadRule = "deny/unread"

func quote(s string) string { return regexp.QuoteMeta(s) }

// denyPermission translates one rule that denies.
func denyPermission(rule *policy.HTTPRule) *rbacv3.Permission {
	var all []*rbacv3.Permission
	if rule.Method != "" {
		all = append(all, matches(":method", rule.Method))
	}
	if rule.Path != "" {
		all = append(all, listed("paths", expression(rule.Path)))
	}
	if rule.Host != "" {
		all = append(all, listed("hosts", expression("(?i:"+rule.Host+")")))
	}
	for _, h := range rule.Headers {
		all = append(all, denyHeader(h))
	}
	return allOf(all)
}

// denyHeader is about any value of several, under any name that is taken for this one.
func denyHeader(h policy.HeaderRule) *rbacv3.Permission {
	name := strings.ReplaceAll(strings.ToLower(h.Name), "_", "-")
	value := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "(?s).*"}}}
	if h.Value != "" {
		value = exactly(escaped(h.Value))
	}
	list := read(oneOf(value), "headers", name)
	if name != "host" {
		return list
	}
	return anyOf(list, listed("hosts", value))
}

// escaped is how the script writes a value: metadata must be UTF-8, which values need
// not be.
func escaped(value string) string {
	var b strings.Builder
	for i := range len(value) {
		if c := value[i]; c == '%' || c < ' ' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// listed: one of a list matches.
func listed(list string, value *matcherv3.StringMatcher) *rbacv3.Permission {
	return read(oneOf(value), list)
}

func oneOf(value *matcherv3.StringMatcher) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{
		MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: &matcherv3.ValueMatcher{
			MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: value},
		}},
	}}}
}

// unread: the script did not say that it is done.
func unread() *rbacv3.Permission {
	return not(read(&matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_BoolMatch{BoolMatch: true}}, "read"))
}

func read(value *matcherv3.ValueMatcher, path ...string) *rbacv3.Permission {
	m := &matcherv3.MetadataMatcher{Filter: readingSpace, Value: value}
	for _, key := range path {
		m.Path = append(m.Path, &matcherv3.MetadataMatcher_PathSegment{
			Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key},
		})
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_SourcedMetadata{SourcedMetadata: &rbacv3.SourcedMetadata{MetadataMatcher: m}}}
}
