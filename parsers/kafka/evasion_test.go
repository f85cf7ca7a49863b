package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

// TestEvasion has clients say what rules speak of in ways that clients do not.
func TestEvasion(t *testing.T) {
	commit := func(group string) kmsg.Request {
		r := kmsg.NewPtrOffsetCommitRequest()
		r.Version, r.Group = 8, group
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic = "a"
		topic.Partitions = append(topic.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
		r.Topics = append(r.Topics, topic)
		return r
	}
	offsets := func(groups ...string) kmsg.Request {
		r := kmsg.NewPtrOffsetFetchRequest()
		r.Version = 8
		for _, name := range groups {
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group = name
			r.Groups = append(r.Groups, g)
		}
		return r
	}
	share := func(group *string) kmsg.Request {
		r := kmsg.NewPtrShareFetchRequest()
		r.Version, r.GroupID, r.MemberID = 1, group, kmsg.StringPtr("m")
		return r
	}
	follow := func(version int16, replica int32) kmsg.Request {
		r := fetchOf(version, 0, -1, "a")
		r.ReplicaID, r.ReplicaState.ID = replica, replica
		r.ClusterID = kmsg.StringPtr("c") // a tagged field
		return r
	}
	g, none := "g", ""
	for name, tt := range map[string]struct {
		request kmsg.Request
		rule    policy.KafkaRule
		passes  bool
	}{
		"a group":                        {commit("g"), onlyA, true},
		"the group without a name":       {commit(""), onlyA, false},
		"it, by a rule for all groups":   {commit(""), policy.KafkaRule{Topic: "a", Group: "*"}, true},
		"it, by a rule for no group":     {commit(""), policy.KafkaRule{Role: "consume", Topic: "a"}, true},
		"offsets of it":                  {offsets(""), onlyA, false},
		"a share group":                  {share(&g), onlyA, true},
		"the share group without a name": {share(&none), onlyA, false},
		"no share group":                 {share(nil), onlyA, false},
		"a client's fetch":               {follow(12, -1), onlyA, true},
		"a client's fetch with tags":     {follow(16, -1), policy.KafkaRule{}, true},
		"a broker's fetch":               {follow(12, 2), onlyA, false},
		"a broker's fetch, by tags":      {follow(16, 2), policy.KafkaRule{}, false},
		"a broker's fetch, long ago":     {follow(4, 0), onlyA, false},
	} {
		w := newWire(t, parsertest.Whole, tt.rule)
		w.Session.(*Session).topics.Learn(idA, "a")
		w.Write(parsers.Client, requestFrame(1, tt.request))
		if got := len(w.got(parsers.Server)) > 0; got != tt.passes {
			t.Errorf("%s: reached the broker: %v; %q", name, got, w.hooks.requests)
		}
		if w.Err != nil {
			t.Errorf("%s: %v", name, w.Err)
		}
	}
}
