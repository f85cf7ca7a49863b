package policy

import "slices"

// allTopics is the topic of a request that is about every one, named or not.
const allTopics = "*"

// deniesKafka finds a rule that denies a request: one of which all that it names is in
// the request. Where an allow asks nothing of what a request does not carry, a deny
// would close the connection by that: a client that may not use one topic still has to
// find brokers.
func (j *rulesJudge) deniesKafka(r *KafkaRequest) (Decision, bool) {
	for i := range j.kafka {
		if k := &j.kafka[i]; k.denies(r) {
			return Decision{Verdict: Allow, Rule: k.Ref}, true
		}
	}
	return Decision{}, false
}

func (k *KafkaRule) denies(r *KafkaRequest) bool {
	switch {
	case len(k.APIKeys) > 0 && !slices.Contains(k.APIKeys, r.APIKey),
		k.Role != "" && ofBothRoles(r.APIKey),
		k.HasVersion && k.APIVersion != r.APIVersion,
		k.ClientID != "" && k.ClientID != r.ClientID,
		k.Topic != "" && (r.Topic == "" || r.Topic != allTopics && !glob(k.Topic, r.Topic, 0)),
		k.Group != "" && (r.Group == "" || !glob(k.Group, r.Group, 0)),
		k.TransactionalID != "" && (r.TransactionalID == "" || !glob(k.TransactionalID, r.TransactionalID, 0)):
		return false
	}
	return true
}

// ofBothRoles reports whether clients of either role need the API: who is denied one
// role may have the other.
func ofBothRoles(key int16) bool {
	return key == KafkaMetadata || key == KafkaAPIVersions || key == KafkaFindCoordinator
}
