package integration

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const clusterConfig = `process.roles=broker,controller
node.id=%[1]d
controller.quorum.voters=%[2]s
listeners=PLAINTEXT://%[3]s:9092,CONTROLLER://%[3]s:9093
advertised.listeners=PLAINTEXT://%[3]s:9092
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=%[4]s/data
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=1
offsets.topic.num.partitions=3
offsets.topic.replication.factor=3
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=4000
`

// TestKafkaCluster has three brokers, each behind the same rules: clients go where
// topics and groups are led, and go on when that moves because a broker dies.
func TestKafkaCluster(t *testing.T) {
	n := startNode(t)
	brokers := startCluster(t, n, 3)
	client := n.workload(t, "client", "app=client")
	first := brokers[0]
	if out := first.kafka(t, first, "franz", "create", "topic=orders-a,secret", "partitions=6", "replicas=3"); strings.Contains(out, "error") {
		t.Fatal(out)
	}
	first.kafka(t, first, "franz", "produce", "topic=secret", "records=30")
	secret := topicID(t, first, "secret")
	n.apply(t, `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: cluster}
spec:
  endpointSelector: {matchLabels: {app: broker}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: broker}}]
`, allowKafka("kafka", "client", `role: produce, topic: "orders-*"`, `role: consume, topic: "orders-*", group: "g-*"`))

	try := func(b *broker, want, never string, args ...string) {
		t.Helper()
		out := client.kafka(t, b, "franz", args[0], args[1:]...)
		if !strings.Contains(out, want) || never != "" && strings.Contains(out, never) {
			t.Errorf("%v by %s: want %q and not %q in:\n%s\n%s", args, b.name, want, never, out, n.headgate(t, "observe", "--last", "20"))
		}
	}
	all := func(alive ...*broker) {
		t.Helper()
		for _, b := range alive {
			try(b, "produced orders-a 60", "error", "produce", "topic=orders-a", "records=60", "spread=1")
			try(b, "topic orders-a", "secret", "topics")
			try(b, "error 29", "produced", "produce", "topic=secret", "seconds=20")
		}
		// Topics by their ids, of which each broker is asked what they are.
		for _, b := range alive {
			try(b, "error 29", "fetched", "raw", "uuid="+secret, fmt.Sprintf("node=%d", b.number))
		}
		try(alive[0], "consumed orders-a", "error", "group", "topic=orders-a", "group=g-"+alive[0].name, "records=40")
		try(alive[0], "error 30", "consumed", "group", "topic=orders-a", "group=other", "seconds=20")
	}
	all(brokers...)
	// Whatever is led by the last one moves; its own connections end.
	brokers[2].process.end(syscall.SIGKILL, patience)
	time.Sleep(5 * time.Second) // until the others know
	all(brokers[:2]...)
	try(brokers[0], "consumed orders-a", "error", "group", "topic=orders-a", "group=g-"+brokers[0].name, "records=20")
	brokers[2].run(t)
	brokers[2].wait(t)
	all(brokers[2])
}

// startCluster starts brokers that are controllers too, in a workload each.
func startCluster(t *testing.T, n *node, size int) (brokers []*broker) {
	t.Helper()
	dir, err := os.MkdirTemp(baseDir, "cluster")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var workloads []*workload
	var voters []string
	for i := range size {
		w := n.workload(t, fmt.Sprintf("broker%d", i+1), "app=broker")
		workloads, voters = append(workloads, w), append(voters, fmt.Sprintf("%d@%s:9093", i+1, w.addr(4)))
	}
	for i, w := range workloads {
		own := fmt.Sprintf("%s/%d", dir, i+1)
		if err := os.Mkdir(own, 0o700); err != nil {
			t.Fatal(err)
		}
		b := w.formatKafka(t, kafkaVersions[0], own, fmt.Sprintf(clusterConfig, i+1, strings.Join(voters, ","), w.addr(4), own))
		b.number = i + 1
		b.run(t)
		brokers = append(brokers, b)
	}
	for _, b := range brokers {
		b.wait(t)
	}
	return brokers
}

// topicID is the id of a topic, in hexadecimal digits.
func topicID(t *testing.T, b *broker, topic string) string {
	t.Helper()
	out := b.kafka(t, b, "franz", "id", "topic="+topic)
	_, id, ok := strings.Cut(out, "id ")
	if id, _, _ = strings.Cut(id, "\n"); !ok || len(id) != 32 {
		t.Fatalf("the id of topic %s is not in: %s", topic, out)
	}
	return id
}
