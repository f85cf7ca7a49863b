package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// confluentProgram uses librdkafka as Python programs do.
const confluentProgram = `
import sys
from confluent_kafka import Producer, Consumer, KafkaException
operation, broker, topic, group = sys.argv[1:5]
base = {"bootstrap.servers": broker, "client.id": "app"}
if operation == "produce":
    def told(error, message):
        print("error %d" % error.code() if error else "produced " + message.topic())
    p = Producer({**base, "message.timeout.ms": 60000, "enable.idempotence": True})
    p.produce(topic, b"record", callback=told)
    p.flush(90)
elif operation == "list":
    print("topics", *Producer(base).list_topics(timeout=60).topics)
else:
    c = Consumer({**base, "group.id": group, "auto.offset.reset": "earliest", "group.protocol": sys.argv[5]})
    c.subscribe([topic])
    for _ in range(90):
        m = c.poll(1)
        if m is None:
            continue
        print("error %d" % m.error().code() if m.error() else "consumed " + m.topic())
        break
    c.close()
`

// kafkaTools drives clients that are programs: kcat, Python's, Kafka's own.
func kafkaTools(t *testing.T, client *workload, b *broker) {
	check := func(name, out, want, never string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(out, want) || never != "" && strings.Contains(out, never) {
				t.Errorf("want %q and never %q in:\n%s", want, never, out)
			}
		})
	}
	kcat := needProgram(t, "kcat")
	run := func(input string, args ...string) string {
		return client.runWith(t, input, kcat, append([]string{"-b", b.address, "-X", "client.id=app"}, args...)...)
	}
	check("kcat produces", run("hello\n", "-P", "-t", "orders-a")+"done", "done", "rror")
	check("kcat consumes", run("", "-C", "-t", "orders-a", "-o", "-1", "-e", "-q"), "hello", "rror")
	check("kcat lists", run("", "-L"), "orders-a", "secret")
	check("kcat produces what is denied", run("hello\n", "-P", "-t", "secret", "-X", "message.timeout.ms=60000"), "authorization failed", "")
	check("kcat consumes what is denied", run("", "-C", "-t", "secret", "-o", "beginning", "-e"), "authorization failed", "record")

	if python := needProgram(t, "python3"); hasConfluent(t, client, python) {
		confluent := func(args ...string) string {
			return client.runWith(t, confluentProgram, python, append([]string{"-"}, args...)...)
		}
		check("confluent produces", confluent("produce", b.address, "orders-a", "-"), "produced orders-a", "error")
		check("confluent is denied to produce", confluent("produce", b.address, "secret", "-"), "error 29", "produced")
		check("confluent lists", confluent("list", b.address, "-", "-"), "topics orders-", "secret")
		check("confluent consumes by pattern", confluent("consume", b.address, "^orders-.*", "g-pattern", "classic"), "consumed orders-", "error")
		check("confluent consumes", confluent("consume", b.address, "orders-a", "g-confluent", "classic"), "consumed orders-a", "error")
		check("confluent is denied to consume", confluent("consume", b.address, "secret", "g-confluent", "classic"), "error 29", "consumed")
		check("confluent is denied a group", confluent("consume", b.address, "orders-a", "other", "classic"), "error 30", "consumed")
		if b.version >= "4" {
			check("confluent is in a new group", confluent("consume", b.address, "orders-a", "g-new", "consumer"), "consumed orders-a", "error")
			check("confluent is denied in a new group", confluent("consume", b.address, "secret", "g-new", "consumer"), "error 29", "consumed")
		}
	}

	dir, err := os.MkdirTemp(baseDir, "kafkacli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	property := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const tools = "org.apache.kafka.tools."
	produces := tools + "ConsoleProducer"
	if b.version < "4" {
		produces = "kafka.tools.ConsoleProducer"
	}
	producer := func(topic string) string {
		return client.java(t, b, "from java\n", produces, "--topic", topic, "--request-timeout-ms", "30000")
	}
	consumer := func(topic, group string, more ...string) string {
		return client.java(t, b, "", tools+"consumer.ConsoleConsumer", append([]string{
			"--topic", topic, "--group", group, "--from-beginning", "--max-messages", "3", "--timeout-ms", "90000",
		}, more...)...)
	}
	const denied = "TopicAuthorizationException"
	check("Java produces", producer("orders-a")+"done", "done", "Exception")
	check("Java produces what is denied", producer("secret"), denied, "")
	check("Java consumes", consumer("orders-a", "g-java"), "Processed a total of 3 messages", "Exception")
	check("Java consumes on", consumer("orders-a", "g-java"), "Processed a total of 3 messages", "Exception")
	check("Java consumes what is denied", consumer("secret", "g-java"), denied, "of 3 messages")
	check("Java is denied a group", consumer("orders-a", "other"), "GroupAuthorizationException", "of 3 messages")
	if b.version >= "4" {
		protocol := property("consumer.properties", "group.protocol=consumer\n")
		flag := "--command-config"
		check("Java is in a new group", consumer("orders-a", "g-java-new", flag, protocol), "Processed a total of 3 messages", "Exception")
		check("Java is denied in a new group", consumer("secret", "g-java-new", flag, protocol), denied, "of 3 messages")
	}
	check("Java lists", client.java(t, b, "", tools+"TopicCommand", "--list"), "orders-a", "secret")
	check("Java creates", client.java(t, b, "", tools+"TopicCommand", "--create", "--topic", "orders-new"), denied, "Created")
}

// hasConfluent reports whether Python has the client; the parts of the tests put it
// beside the brokers.
func hasConfluent(t *testing.T, client *workload, python string) bool {
	t.Helper()
	dir := os.Getenv("HEADGATE_KAFKA")
	if dir == "" {
		dir = filepath.Join(moduleRoot(t), ".cache", "kafka")
	}
	t.Setenv("PYTHONPATH", filepath.Join(dir, "python"))
	if out := client.runWith(t, "import confluent_kafka", python, "-"); out != "" {
		missing(t, "this test drives confluent-kafka: 'make parts' installs it\n%s", out)
		return false
	}
	return true
}
