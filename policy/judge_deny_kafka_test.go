package policy

import "testing"

func TestKafkaDenies(t *testing.T) {
	role := func(name string, k KafkaRule) KafkaRule {
		k.Role = name
		k.APIKeys, _ = KafkaRole(name, k.TransactionalID != "")
		return k
	}
	const (
		deleteTopics, createACLs, describeLogDirs = 20, 30, 35
	)
	topic := KafkaRule{Topic: "secret-*"}
	for name, tt := range map[string]struct {
		deny    KafkaRule
		request KafkaRequest
		denied  bool
	}{
		"the topic":                 {topic, KafkaRequest{APIKey: KafkaProduce, Topic: "secret-a"}, true},
		"administration of it":      {topic, KafkaRequest{APIKey: deleteTopics, Topic: "secret-a"}, true},
		"every topic":               {topic, KafkaRequest{APIKey: describeLogDirs, Topic: "*"}, true},
		"another topic":             {topic, KafkaRequest{APIKey: KafkaFetch, Topic: "a"}, false},
		"versions":                  {topic, KafkaRequest{APIKey: KafkaAPIVersions}, false},
		"brokers":                   {topic, KafkaRequest{APIKey: KafkaMetadata}, false},
		"a group":                   {topic, KafkaRequest{APIKey: KafkaJoinGroup, Group: "g"}, false},
		"another's administration":  {topic, KafkaRequest{APIKey: createACLs}, false},
		"a group by a rule for it":  {KafkaRule{Group: "g"}, KafkaRequest{APIKey: KafkaJoinGroup, Group: "g"}, true},
		"a topic in the group":      {KafkaRule{Group: "g"}, KafkaRequest{APIKey: KafkaOffsetCommit, Group: "g", Topic: "a"}, true},
		"a topic in another group":  {KafkaRule{Group: "g", Topic: "a"}, KafkaRequest{APIKey: KafkaOffsetCommit, Group: "h", Topic: "a"}, false},
		"a transaction":             {KafkaRule{TransactionalID: "t"}, KafkaRequest{APIKey: KafkaEndTxn, TransactionalID: "t"}, true},
		"no transaction":            {KafkaRule{TransactionalID: "t"}, KafkaRequest{APIKey: KafkaProduce, Topic: "a"}, false},
		"all":                       {KafkaRule{}, KafkaRequest{APIKey: KafkaAPIVersions}, true},
		"a client":                  {KafkaRule{ClientID: "c"}, KafkaRequest{APIKey: KafkaAPIVersions, ClientID: "c"}, true},
		"another client":            {KafkaRule{ClientID: "c"}, KafkaRequest{APIKey: KafkaAPIVersions, ClientID: "d"}, false},
		"a version":                 {KafkaRule{APIKeys: []int16{1}, HasVersion: true, APIVersion: 4}, KafkaRequest{APIKey: 1, APIVersion: 4}, true},
		"another version":           {KafkaRule{APIKeys: []int16{1}, HasVersion: true, APIVersion: 4}, KafkaRequest{APIKey: 1, APIVersion: 5}, false},
		"an API":                    {KafkaRule{APIKeys: []int16{createACLs}}, KafkaRequest{APIKey: createACLs}, true},
		"producing":                 {role("produce", topic), KafkaRequest{APIKey: KafkaProduce, Topic: "secret-a"}, true},
		"consuming, if not allowed": {role("produce", topic), KafkaRequest{APIKey: KafkaFetch, Topic: "secret-a"}, false},
		"what both need":            {role("produce", KafkaRule{}), KafkaRequest{APIKey: KafkaMetadata, Topic: "a"}, false},
		"all producing":             {role("produce", KafkaRule{}), KafkaRequest{APIKey: KafkaProduce, Topic: "a"}, true},
	} {
		judge, err := CompileSet(&L7Set{Protocol: ProtocolKafka, Kafka: []KafkaRule{{}}, Deny: &L7Rules{Protocol: ProtocolKafka, Kafka: []KafkaRule{tt.deny}}})
		if err != nil {
			t.Fatal(err)
		}
		if d := judge.Decide(&tt.request); (d.Verdict != Allow) != tt.denied {
			t.Errorf("%s: %v %s", name, d.Verdict, d.Reason)
		}
	}
}
