package policy

import (
	"fmt"
	"slices"
)

func (j *rulesJudge) decideKafka(r *KafkaRequest) Decision {
	if kafkaAPIs[r.APIKey] == "" {
		return Decision{Reason: fmt.Sprintf("API %d is not known", r.APIKey)}
	}
	if len(j.kafka) == 0 {
		return Decision{Reason: "there is no rule that allows a request"}
	}
	nearest, fewest := 0, -1
	for i := range j.kafka {
		n := len(j.kafka[i].misses(r))
		if n == 0 {
			return Decision{Verdict: Allow, Rule: j.kafka[i].Ref}
		}
		if len(j.kafka[i].APIKeys) > 0 && !slices.Contains(j.kafka[i].APIKeys, r.APIKey) {
			n += 2 // one that is about other APIs is not near
		}
		if r.TransactionalID != "" && j.kafka[i].TransactionalID == "" {
			n++ // nor is one that is about no transactions
		}
		if fewest < 0 || n < fewest {
			nearest, fewest = i, n
		}
	}
	rule := &j.kafka[nearest]
	reason := ""
	for i, miss := range rule.misses(r) {
		if i > 0 {
			reason += ", "
		}
		reason += miss
	}
	return Decision{Nearest: rule.Ref, Reason: reason}
}

// misses says in words what would have had to differ; nothing if the rule
// matches.
func (k *KafkaRule) misses(r *KafkaRequest) []string {
	var list []string
	miss := func(what, value, wanted string) {
		list = append(list, what+" "+show([]byte(value))+" does not match "+show([]byte(wanted)))
	}
	name := kafkaAPIs[r.APIKey]
	if len(k.APIKeys) > 0 && !slices.Contains(k.APIKeys, r.APIKey) {
		list = append(list, "API "+name+" is not among those of the rule")
	}
	if k.HasVersion && k.APIVersion != r.APIVersion {
		list = append(list, fmt.Sprintf("version %d of the API is not %d", r.APIVersion, k.APIVersion))
	}
	if k.ClientID != "" && k.ClientID != r.ClientID {
		miss("client id", r.ClientID, k.ClientID)
	}
	named := false // whether it is about something that the rule names
	for _, part := range [3]struct{ what, wanted, value string }{
		{"topic", k.Topic, r.Topic}, {"group", k.Group, r.Group}, {"transactional id", k.TransactionalID, r.TransactionalID},
	} {
		if part.wanted == "" || part.value == "" {
			continue
		}
		if named = true; !glob(part.wanted, part.value, 0) {
			miss(part.what, part.value, part.wanted)
		}
	}
	names := k.Topic != "" || k.Group != "" || k.TransactionalID != ""
	switch {
	case names && !named && ofResources(r.APIKey):
		list = append(list, "API "+name+" is about something that the rule does not name")
	case len(k.APIKeys) > 0 || !names || attends(r.APIKey):
	case !uses(r.APIKey):
		list = append(list, "API "+name+" is administration, which a rule must name")
	case !named:
		list = append(list, "API "+name+" is not about what the rule names")
	}
	role := k.Role != "" || len(k.APIKeys) == 0 && names
	if r.APIKey == KafkaInitProducerID && role && r.TransactionalID != "" && k.TransactionalID == "" {
		list = append(list, "transactional id "+show([]byte(r.TransactionalID))+" is not named by the rule")
	}
	return list
}
