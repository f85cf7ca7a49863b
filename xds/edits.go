package xds

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	headertometadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/headgate/headgate/policy"
)

// Every rule that matches a request puts its headers right, in order, as policy does
// (policy/edit.go). The script does that. It knows no RE2: a filter before it writes for
// each expression of such a rule whether it matches.

// testSpace is the metadata of these answers.
const testSpace = "headgate.tests"

// matched is the answer yes. It has a space, which no method, path or host has.
const matched = "it matches"

// editing translates the rules that change headers.
func (w *words) editing(set *policy.L7Set) {
	for i, rule := range readable(set.HTTP) {
		name := ruleName("allow", i, rule.Ref)
		if len(rule.Edits) == 0 || hidden(&rule) || !w.keeps(name) {
			continue
		}
		edit := map[string]any{
			"tests":   w.testing(i, &rule),
			"headers": headersOf(rule.Headers),
			"edits":   editsOf(rule.Edits),
			"connect": strings.Contains(rule.Method, connectMethod),
		}
		w.program.edits = append(w.program.edits, edit)
	}
}

// testing has Envoy test the expressions of a rule, and returns under which keys.
func (w *words) testing(i int, rule *policy.HTTPRule) []any {
	keys := []any{}
	for _, part := range []struct{ header, expr string }{
		{":method", rule.Method}, {":path", rule.Path}, {":authority", rule.Host},
	} {
		if part.expr == "" {
			continue
		}
		_, err := syntax.Parse(part.expr, syntax.Perl) // it may not stand alone in a group
		re, bad := regexp.Compile(`\A(?:` + part.expr + `)\z`)
		if err := errors.Join(err, bad); err != nil {
			w.err = fmt.Errorf("%s: %w", rule.Ref, err)
			return nil
		}
		key := fmt.Sprintf("%d%s", i, part.header)
		w.program.tests = append(w.program.tests, test{key, part.header, part.expr, re.MatchString("")})
		keys = append(keys, key)
	}
	return keys
}

// test asks whether the whole of a header matches an expression.
type test struct {
	key, header, expr string
	empty             bool // does: a header that is missing is empty, as the path of CONNECT
}

// testsOf has Envoy answer the tests of both directions.
func testsOf(egress, ingress *program) *headertometadatav3.Config {
	c := &headertometadatav3.Config{}
	for direction, p := range map[string]*program{egressWord: egress, ingressWord: ingress} {
		if p == nil {
			continue
		}
		for _, t := range p.tests {
			rule := &headertometadatav3.Config_Rule{
				Header: t.header,
				OnHeaderPresent: &headertometadatav3.Config_KeyValuePair{
					MetadataNamespace: testSpace + "." + direction, Key: t.key, Type: headertometadatav3.Config_STRING,
					RegexValueRewrite: &matcherv3.RegexMatchAndSubstitute{
						Pattern: &matcherv3.RegexMatcher{Regex: "^(?:" + t.expr + ")$"}, Substitution: matched,
					},
				},
			}
			if t.empty {
				rule.OnHeaderMissing = &headertometadatav3.Config_KeyValuePair{
					MetadataNamespace: testSpace + "." + direction, Key: t.key, Type: headertometadatav3.Config_STRING, Value: matched,
				}
			}
			c.RequestRules = append(c.RequestRules, rule)
		}
	}
	slices.SortStableFunc(c.RequestRules, func(a, b *headertometadatav3.Config_Rule) int {
		return cmp.Compare(a.GetOnHeaderPresent().GetMetadataNamespace(), b.GetOnHeaderPresent().GetMetadataNamespace())
	})
	return c
}

func headersOf(rules []policy.HeaderRule) []any {
	out := []any{}
	for _, h := range rules {
		out = append(out, map[string]any{"name": strings.ToLower(h.Name), "value": h.Value})
	}
	return out
}

// editsOf is what the script is told to do. A secret that could not be read has made the
// rule match nothing, or left the value that stands beside it.
func editsOf(edits []policy.HeaderEdit) []any {
	out := []any{}
	for _, e := range edits {
		action := map[policy.HeaderAction]string{
			policy.HeaderLog: "log", policy.HeaderAdd: "added", policy.HeaderDelete: "deleted", policy.HeaderReplace: "replaced",
		}[e.Action]
		out = append(out, map[string]any{"name": strings.ToLower(e.Name), "shown": e.Name, "value": e.Value, "action": action})
	}
	return out
}

// responseOf is what the client of a denied request is given.
func responseOf(r *policy.DenyResponse) map[string]any {
	return map[string]any{"status": fmt.Sprint(r.Status), "body": r.Body + "\r\n", "message": percent(r.Body)}
}

// percent writes a message as gRPC wants it in a header.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
