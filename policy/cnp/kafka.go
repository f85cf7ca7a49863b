package cnp

import (
	"strconv"
	"strings"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// kafka reads one rule for Kafka: Cilium's fields, and group and
// transactionalID, which are ours.
func (r *reader) kafka(v manifest.Value, ref policy.Ref, l7 *policy.L7Rules) {
	fields := v.Object([]string{"role", "apiKey", "apiVersion", "clientID", "topic", "group", "transactionalID"}, nil)
	rule := policy.KafkaRule{
		Topic:           resource(fields["topic"], isTopic, "a topic; write at most 249 letters, digits, '.', '_' and '-', '*' for any of them"),
		Group:           resource(fields["group"], isPrintable, "a group; write printable characters, '*' for any of them"),
		TransactionalID: resource(fields["transactionalID"], isPrintable, "a transactional id; write printable characters, '*' for any of them"),
		ClientID:        resource(fields["clientID"], isPrintable, "a client id; write printable characters"),
		Ref:             ref,
	}
	role, hasRole := fields["role"]
	key, hasKey := fields["apiKey"]
	switch {
	case hasRole && hasKey:
		v.Fail("has both role and apiKey; write one")
	case hasRole:
		text, ok := role.Text()
		if !ok {
			return
		}
		rule.Role = strings.ToLower(text)
		if rule.APIKeys, ok = policy.KafkaRole(text, rule.TransactionalID != ""); !ok {
			role.Fail("%q is not a role; write produce or consume", text)
		}
	case hasKey:
		text, ok := key.Text()
		if !ok {
			return
		}
		number, ok := policy.KafkaAPI(text)
		if !ok {
			key.Fail("%q is not an API that is known; write its name, as produce, fetch or metadata", text)
		}
		rule.APIKeys = []int16{number}
	}
	if version, ok := fields["apiVersion"]; ok {
		text, ok := version.Text()
		n, err := strconv.ParseInt(text, 10, 16)
		if ok && (err != nil || n < 0) {
			version.Fail("%q is not a version; write a number from 0 to 32767, in quotes", text)
		}
		rule.HasVersion, rule.APIVersion = true, int16(n)
	}
	if rule.Role == "" && len(rule.APIKeys) == 0 && rule.Topic != "" {
		v.Warn("names a topic but neither role nor apiKey; it allows every API that programs use the topic by and what clients need for it, but no administration")
	}
	l7.Kafka = append(l7.Kafka, rule)
}

// resource reads the name of something; none is everything.
func resource(v manifest.Value, valid func(string) bool, advice string) string {
	if !v.IsSet() {
		return ""
	}
	text, ok := v.Text()
	if ok && !valid(text) {
		v.Fail("%q is not %s", text, advice)
	}
	return text
}

func isTopic(s string) bool { return len(s) <= 249 && isWord(s, "._-*") }

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return s != "" && len(s) <= 255
}
