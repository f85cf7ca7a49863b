package cnp

import (
	"regexp"
	"strings"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// http reads one HTTP rule.
func (r *reader) http(v manifest.Value, ref policy.Ref, l7 *policy.L7Rules) {
	fields := v.Object([]string{"method", "path", "host", "headers", "headerMatches"}, nil)
	rule := policy.HTTPRule{
		Method: pattern(fields["method"]),
		Path:   pattern(fields["path"]),
		Host:   pattern(fields["host"]),
		Ref:    ref,
	}
	if isLiteral(rule.Path) && rule.Path[0] != '/' {
		fields["path"].Fail("%q matches no path, they begin with a slash; write %q", rule.Path, "/"+rule.Path)
	}
	if upper := strings.ToUpper(rule.Method); isLiteral(rule.Method) && upper != rule.Method {
		fields["method"].Warn("%q is not %s, methods are compared with their case; write %s", rule.Method, upper, upper)
	}
	if list, ok := fields["headers"]; ok {
		for _, item := range list.List() {
			if h, ok := header(item); ok {
				rule.Headers = append(rule.Headers, h)
			}
		}
	}
	if list, ok := fields["headerMatches"]; ok {
		for _, item := range list.List() {
			r.headerMatch(item, &rule)
		}
	}
	l7.HTTP = append(l7.HTTP, rule)
}

var headerActions = map[string]policy.HeaderAction{
	"LOG": policy.HeaderLog, "ADD": policy.HeaderAdd, "DELETE": policy.HeaderDelete, "REPLACE": policy.HeaderReplace,
}

// headerMatch reads a header that must have a value, or is given it.
func (r *reader) headerMatch(v manifest.Value, rule *policy.HTTPRule) {
	fields := v.Object([]string{"mismatch", "name", "secret", "value"}, nil)
	nameField, ok := fields["name"]
	if !ok {
		v.Fail("name is missing; write the name of the header")
		return
	}
	var h policy.HeaderRule
	if h.Name, ok = nameField.Text(); ok && !isToken(h.Name) {
		nameField.Fail("%q is not the name of a header; write letters, digits and '-'", h.Name)
	}
	if value, ok := fields["value"]; ok {
		if h.Value, ok = value.Text(); ok && !isFieldValue(h.Value) {
			value.Fail("%q is not a value that a header can have; write printable characters", h.Value)
		}
	}
	var secret *policy.SecretRef
	if s, ok := fields["secret"]; ok {
		secret = r.secret(s)
	}
	mismatch, ok := fields["mismatch"]
	if !ok {
		if secret != nil {
			rule.Secrets = append(rule.Secrets, policy.SecretHeader{Name: h.Name, Secret: *secret, Value: h.Value})
			return
		}
		rule.Headers = append(rule.Headers, h)
		return
	}
	text, _ := mismatch.Text()
	action, ok := headerActions[text]
	if !ok {
		mismatch.Fail("%q is nothing that can be done; write LOG, ADD, DELETE or REPLACE, or delete it to deny such requests", text)
	}
	if (action == policy.HeaderAdd || action == policy.HeaderReplace) && secret == nil && h.Value == "" {
		v.Fail("has no value to put in; write value or secret")
	}
	if err := policy.ValidateEdit(h.Name); err != nil && action != policy.HeaderLog {
		nameField.Fail("%v", err)
	}
	rule.Edits = append(rule.Edits, policy.HeaderEdit{HeaderRule: h, Action: action, Secret: secret})
}

// isLiteral reports whether the expression stands for itself alone.
func isLiteral(expr string) bool { return expr != "" && regexp.QuoteMeta(expr) == expr }

// pattern reads an expression; a field that is not there matches everything.
func pattern(v manifest.Value) string {
	if !v.IsSet() {
		return ""
	}
	text, ok := v.Text()
	if !ok {
		return ""
	}
	if err := policy.ValidatePattern(text); err != nil {
		v.Fail("%v", err)
	}
	return text
}

// header reads "Name: value", or "Name" for a header that must only be there.
func header(v manifest.Value) (policy.HeaderRule, bool) {
	text, ok := v.Text()
	if !ok {
		return policy.HeaderRule{}, false
	}
	name, content, hasValue := strings.Cut(strings.TrimSpace(text), " ")
	h := policy.HeaderRule{Name: strings.TrimSuffix(name, ":"), Value: strings.TrimSpace(content)}
	switch {
	case !isToken(h.Name):
		v.Fail("%q is not a header; write \"Name: value\", with a space behind the colon, or \"Name\"", text)
	case !hasValue && name != h.Name:
		v.Fail("%q has no value; write %q if the header must only be there", text, h.Name)
	case !isFieldValue(h.Value):
		v.Fail("%q is not a value that a header can have; write printable characters", h.Value)
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
