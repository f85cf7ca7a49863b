package integration

import (
	"strings"
	"testing"
)

// kafkaShare drives share groups by Kafka's own consumer, and groups of Streams
// programs, allowed and denied by topic and by group.
func kafkaShare(t *testing.T, client *workload, b *broker) {
	for _, group := range []string{"s-java", "evil"} {
		if out := b.java(t, b, "", "kafka.admin.ConfigCommand", "--alter", "--entity-type", "groups", "--entity-name", group,
			"--add-config", "share.auto.offset.reset=earliest"); strings.Contains(out, "Exception") || strings.Contains(out, "rror") {
			t.Fatal(out)
		}
	}
	member := client.node.workload(t, "member", "app=member")
	client.node.apply(t, allowKafka("share", "member", `topic: "orders-*", group: "s-*"`))
	consume := func(topic, group, wait string) string {
		return member.java(t, b, "", "org.apache.kafka.tools.consumer.ConsoleShareConsumer",
			"--topic", topic, "--group", group, "--max-messages", "3", "--timeout-ms", wait)
	}
	for _, c := range []struct{ name, topic, group, wait, want, never string }{
		{"allowed", "orders-a", "s-java", "20000", "Processed a total of 3 messages", "Exception:"},
		{"topic", "secret", "s-java", "5000", "TopicAuthorizationException", "a total of 3"},
		{"group", "orders-a", "evil", "5000", "GroupAuthorizationException", "a total of 3"},
	} {
		out := consume(c.topic, c.group, c.wait)
		if !strings.Contains(out, c.want) || strings.Contains(out, c.never) {
			t.Errorf("%s: want %q and not %q in:\n%s", c.name, c.want, c.never, out)
		}
	}
	// Groups of Streams programs are judged by the topics that their programs read.
	for _, c := range []struct{ topic, group, want string }{
		{"orders-a", "s-streams", "joined"}, {"secret", "s-streams", "error 29"}, {"orders-a,secret", "s-streams", "error 29"}, {"orders-a", "evil-streams", "error 30"},
	} {
		if out := member.kafka(t, b, "franz", "streams", "topic="+c.topic, "group="+c.group); !strings.Contains(out, c.want) {
			t.Errorf("streams of %s in %s: want %q in:\n%s", c.topic, c.group, c.want, out)
		}
	}
}
