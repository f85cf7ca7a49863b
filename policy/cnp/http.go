package cnp

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/headgate/headgate/policy"
)

// l7 reads the L7 rules of a port. Empty ones are none.
func (r *reader) l7(v value, ref policy.Ref) *policy.L7Rules {
	fields := v.object([]string{"http"}, refusedL7)
	list, ok := fields["http"]
	if !ok {
		return nil
	}
	items := list.list()
	if len(list.node.Content) == 0 {
		list.warn("is empty and allows every request; write rules, [{}] to only see requests")
		return nil
	}
	l7 := &policy.L7Rules{Protocol: policy.ProtocolHTTP}
	for i, item := range items {
		rule := item.http()
		rule.Ref = policy.Ref{Policy: ref.Policy, Path: fmt.Sprintf("%s.http[%d]", ref.Path, i)}
		l7.HTTP = append(l7.HTTP, rule)
	}
	return l7
}

// http reads one HTTP rule.
func (v value) http() policy.HTTPRule {
	fields := v.object([]string{"method", "path", "host", "headers"}, refusedInHTTP)
	rule := policy.HTTPRule{
		Method: pattern(fields["method"]),
		Path:   pattern(fields["path"]),
		Host:   pattern(fields["host"]),
	}
	if isLiteral(rule.Path) && rule.Path[0] != '/' {
		fields["path"].fail("%q matches no path, they begin with a slash; write %q", rule.Path, "/"+rule.Path)
	}
	if upper := strings.ToUpper(rule.Method); isLiteral(rule.Method) && upper != rule.Method {
		fields["method"].warn("%q is not %s, methods are compared with their case; write %s", rule.Method, upper, upper)
	}
	if list, ok := fields["headers"]; ok {
		for _, item := range list.list() {
			if h, ok := item.header(); ok {
				rule.Headers = append(rule.Headers, h)
			}
		}
	}
	return rule
}

// isLiteral reports whether the expression stands for itself alone.
func isLiteral(expr string) bool { return expr != "" && regexp.QuoteMeta(expr) == expr }

// pattern reads an expression; a field that is not there matches everything.
func pattern(v value) string {
	if v.node == nil {
		return ""
	}
	text, ok := v.text()
	if !ok {
		return ""
	}
	if err := policy.ValidatePattern(text); err != nil {
		v.fail("%v", err)
	}
	return text
}

// header reads "Name: value", or "Name" for a header that must only be there.
func (v value) header() (policy.HeaderRule, bool) {
	text, ok := v.text()
	if !ok {
		return policy.HeaderRule{}, false
	}
	name, content, hasValue := strings.Cut(strings.TrimSpace(text), " ")
	h := policy.HeaderRule{Name: strings.TrimSuffix(name, ":"), Value: strings.TrimSpace(content)}
	switch {
	case !isToken(h.Name):
		v.fail("%q is not a header; write \"Name: value\", with a space behind the colon, or \"Name\"", text)
	case !hasValue && name != h.Name:
		v.fail("%q has no value; write %q if the header must only be there", text, h.Name)
	case !isFieldValue(h.Value):
		v.fail("%q is not a value that a header can have; write printable characters", h.Value)
	default:
		return h, true
	}
	return h, false
}

// isToken: what HTTP allows as the name of a header (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

func isFieldValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
