package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/policy"
)

// kafkaChanges says what the nearest rule would have to name, or, where it is about
// other APIs, which rule there should be beside it.
func kafkaChanges(rule policy.KafkaRule, r *policy.KafkaRequest, at string) []string {
	passes := func(part policy.KafkaRule) bool {
		judge, err := policy.CompileSet(&policy.L7Set{Protocol: policy.ProtocolKafka, Kafka: []policy.KafkaRule{part}})
		return err == nil && judge.Decide(r).Verdict == policy.Allow
	}
	named := rule
	for _, part := range []struct {
		wanted *string
		value  string
	}{{&named.ClientID, r.ClientID}, {&named.Topic, r.Topic}, {&named.Group, r.Group}, {&named.TransactionalID, r.TransactionalID}} {
		if *part.wanted != "" {
			*part.wanted = part.value
		}
	}
	if named.HasVersion {
		named.APIVersion = r.APIVersion
	}
	if !passes(named) {
		return []string{fmt.Sprintf("add %s beside%s", kafkaRule(r), strings.TrimPrefix(at, " in"))}
	}
	var list []string
	for _, part := range []struct {
		name, value string
		rule        policy.KafkaRule
	}{
		{"version", fmt.Sprint(r.APIVersion), policy.KafkaRule{HasVersion: rule.HasVersion, APIVersion: rule.APIVersion}},
		{"client id", r.ClientID, policy.KafkaRule{ClientID: rule.ClientID}},
		{"topic", r.Topic, policy.KafkaRule{APIKeys: []int16{r.APIKey}, Topic: rule.Topic}},
		{"group", r.Group, policy.KafkaRule{APIKeys: []int16{r.APIKey}, Group: rule.Group}},
		{"transactional id", r.TransactionalID, policy.KafkaRule{APIKeys: []int16{r.APIKey}, TransactionalID: rule.TransactionalID}},
	} {
		if !passes(part.rule) {
			list = append(list, fmt.Sprintf("allow %s %s%s", part.name, part.value, at))
		}
	}
	return list
}

// kafkaRule is the rule, as it is written, that allows no more than programs need that
// ask this: by their role, or by the API where that is of none.
func kafkaRule(r *policy.KafkaRequest) string {
	what := "apiKey: " + policy.KafkaAPIName(r.APIKey)
	for _, role := range []string{"produce", "consume"} {
		if keys, _ := policy.KafkaRole(role, r.TransactionalID != ""); slices.Contains(keys, r.APIKey) {
			what = "role: " + role
			break
		}
	}
	for _, part := range []struct{ field, value string }{
		{"topic", r.Topic}, {"group", r.Group}, {"transactionalID", r.TransactionalID},
	} {
		if part.value != "" {
			what += fmt.Sprintf(", %s: %q", part.field, part.value)
		}
	}
	return "{" + what + "}"
}
