package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// kafkaVersions are the brokers that tests drive.
var kafkaVersions = []string{"4.3.1", "3.9.2"}

const brokerConfig = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@localhost:9093
listeners=PLAINTEXT://%[1]s:9092,CONTROLLER://localhost:9093,LOGIN://%[1]s:9094,TLS://%[1]s:9095,MUTUAL://%[1]s:9096
advertised.listeners=PLAINTEXT://%[1]s:9092,LOGIN://%[1]s:9094,TLS://%[1]s:9095,MUTUAL://%[1]s:9096
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT,TLS:SSL,MUTUAL:SSL
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location=%[2]s/keys.pem
listener.name.mutual.ssl.keystore.type=PEM
listener.name.mutual.ssl.keystore.location=%[2]s/keys.pem
listener.name.mutual.ssl.truststore.type=PEM
listener.name.mutual.ssl.truststore.location=%[2]s/clients.pem
listener.name.mutual.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_app="open";
listener.name.login.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
controller.listener.names=CONTROLLER
log.dirs=%[2]s/data
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.share.enable=true
`

// broker is a KRaft broker in a workload.
type broker struct {
	*workload
	version string
	jars    string
	address string
	config  string
	number  int // among the brokers of a cluster

	certificate []byte  // PEM, that TLS shows
	known       pemPair // the certificate of clients that MUTUAL takes
	process     *child
}

// serveKafka starts a broker and waits until it answers.
func (w *workload) serveKafka(t *testing.T, version string) *broker {
	t.Helper()
	dir, err := os.MkdirTemp(baseDir, "kafka")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	certificate, key := certify(t, w.addr(4))
	put(t, filepath.Join(dir, "keys.pem"), append(key, certificate...))
	var known pemPair
	known.certificate, known.key = certify(t, w.addr(4))
	put(t, filepath.Join(dir, "clients.pem"), known.certificate)
	b := w.formatKafka(t, version, dir, fmt.Sprintf(brokerConfig, w.addr(4), dir), "--add-scram", "SCRAM-SHA-256=[name=app,password=open]")
	b.certificate, b.known = certificate, known
	b.run(t)
	b.wait(t)
	return b
}

// formatKafka makes the storage of a broker.
func (w *workload) formatKafka(t *testing.T, version, dir, config string, more ...string) *broker {
	t.Helper()
	b := &broker{workload: w, version: version, jars: kafkaJars(t, version), address: w.at(4, 9092).String(), config: filepath.Join(dir, "server.properties")}
	if err := os.WriteFile(b.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	format := exec.Command(needProgram(t, "java"), append([]string{"-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(b.jars, "*"),
		"kafka.tools.StorageTool", "format", "-t", "hgT3stHgT3stHgT3stHgTA", "-c", b.config}, more...)...)
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("format the storage of Kafka %s: %v\n%s", version, err, out)
	}
	return b
}

// run starts the broker, for the first time or again.
func (b *broker) run(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(b.config+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(needProgram(t, "java"), "-Xmx320m", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(b.jars, "*"), "kafka.Kafka", b.config)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := b.start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	b.process = p
	t.Cleanup(func() {
		p.end(syscall.SIGKILL, patience)
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("Kafka:\n%s", text[max(0, len(text)-2<<10):])
		}
	})
}

// wait waits until the broker answers.
func (b *broker) wait(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(4 * patience)
	for {
		out := b.kafka(t, b, "franz", "topics", "seconds=5")
		if !strings.Contains(out, "error") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("Kafka %s does not answer: %s", b.version, out)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// kafkaJars is where 'make parts' has put a broker.
func kafkaJars(t *testing.T, version string) string {
	t.Helper()
	dir := os.Getenv("HEADGATE_KAFKA")
	if dir == "" {
		dir = filepath.Join(moduleRoot(t), ".cache", "kafka")
	}
	jars := filepath.Join(dir, version)
	if _, err := os.Stat(jars); err != nil {
		missing(t, "this test drives Kafka %s: 'make parts' installs it, or set HEADGATE_KAFKA (%v)", version, err)
	}
	return jars
}

var buildKafka = sync.OnceValues(func() (string, error) {
	path := filepath.Join(baseDir, "kafka-clients")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = "kafka"
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the Kafka clients: %w\n%s", err, out)
	}
	return path, nil
})

// kafka runs a client of a library in the workload and returns what it printed.
func (w *workload) kafka(t *testing.T, b *broker, library, operation string, args ...string) string {
	t.Helper()
	path, err := buildKafka()
	if err != nil {
		t.Fatal(err)
	}
	return w.run(t, path, append([]string{library, operation, "broker=" + b.address}, args...)...)
}

// run runs a program in the workload and returns what it printed.
func (w *workload) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	return w.runWith(t, "", program, args...)
}

func (w *workload) runWith(t *testing.T, input, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &out
	c, err := w.start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	<-c.done
	return out.String()
}

// java runs one of Kafka's own tools in the workload.
func (w *workload) java(t *testing.T, b *broker, input, class string, args ...string) string {
	t.Helper()
	java := needProgram(t, "java")
	return w.runWith(t, input, java, append([]string{"-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", filepath.Join(b.jars, "*"), class, "--bootstrap-server", b.address}, args...)...)
}

// allowKafka is a policy of the broker for a client.
func allowKafka(name, client string, rules ...string) string {
	return allowKafkaAt(9092, name, client, rules...)
}

func allowKafkaAt(port int, name, client string, rules ...string) string {
	text := ""
	for _, r := range rules {
		text += "        - {" + r + "}\n"
	}
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {matchLabels: {app: broker}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: %s}}]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
      rules:
        kafka:
%s`, name, client, port, text)
}

// kafkaCase is what a client does and what it must print.
type kafkaCase struct {
	name, library, operation string
	args                     []string
	want                     []string
	never                    string
}

func TestKafka(t *testing.T) {
	for _, version := range kafkaVersions {
		t.Run(version, func(t *testing.T) { testKafka(t, version) })
	}
}

func testKafka(t *testing.T, version string) {
	secrets := t.TempDir()
	n := startNode(t, "--secrets-dir", secrets, "--metrics-listen", "127.0.0.1:9964")
	server := n.workload(t, "broker", "app=broker")
	client := n.workload(t, "client", "app=client")
	b := server.serveKafka(t, version)
	if out := server.kafka(t, b, "franz", "create", "topic=orders-a,orders-b,secret"); strings.Contains(out, "error") {
		t.Fatal(out)
	}
	server.kafka(t, b, "franz", "produce", "topic=secret", "records=5")
	n.apply(t, allowKafka("kafka", "client",
		`role: produce, topic: "orders-*"`, `role: consume, topic: "orders-*", group: "g-*"`,
		`role: produce, topic: "orders-*", transactionalID: "tx-*"`))

	var cases []kafkaCase
	for _, lib := range []string{"franz", "sarama", "segmentio"} {
		hidden := "error 29"
		if lib == "segmentio" {
			hidden = "error 3:" // its writer asks for all topics and finds that there is none of that name
		}
		cases = append(cases,
			kafkaCase{lib + " produces", lib, "produce", []string{"topic=orders-a", "records=10"}, []string{"produced orders-a 10"}, "error"},
			kafkaCase{lib + " produces 100 KB", lib, "produce", []string{"topic=orders-b", "records=30", "size=100000"}, []string{"produced orders-b 30"}, "error"},
			kafkaCase{lib + " consumes", lib, "consume", []string{"topic=orders-a", "records=10"}, []string{"consumed orders-a"}, "error"},
			kafkaCase{lib + " is in a group", lib, "group", []string{"topic=orders-a", "group=g-" + lib, "records=5"}, []string{"consumed orders-a"}, "error"},
			kafkaCase{lib + " produces more", lib, "produce", []string{"topic=orders-a", "records=10"}, []string{"produced orders-a 10"}, "error"},
			kafkaCase{lib + " goes on in its group", lib, "group", []string{"topic=orders-a", "group=g-" + lib, "records=5"}, []string{"consumed orders-a"}, "error"},
			kafkaCase{lib + " produces what is denied", lib, "produce", []string{"topic=secret", "seconds=90"}, []string{hidden}, "produced"},
			kafkaCase{lib + " consumes what is denied", lib, "consume", []string{"topic=secret", "seconds=90"}, []string{"error 29"}, "consumed"},
			kafkaCase{lib + " is in a denied group", lib, "group", []string{"topic=orders-a", "group=other", "seconds=90"}, []string{"error 30"}, "consumed"},
			kafkaCase{lib + " creates a topic", lib, "create", []string{"topic=orders-new", "seconds=90"}, []string{"error 29"}, ""},
			kafkaCase{lib + " deletes a topic", lib, "delete", []string{"topic=orders-a", "seconds=90"}, []string{"error 29"}, ""},
		)
	}
	cases = append(cases,
		kafkaCase{"both", "franz", "produce", []string{"topic=orders-a,secret", "records=3"}, []string{"produced orders-a 3", "error 29"}, "produced secret"},
		kafkaCase{"no acknowledgement", "franz", "produce0", []string{"topic=orders-a", "records=3"}, []string{"produced orders-a 3"}, "error"},
		kafkaCase{"transaction", "franz", "transaction", []string{"topic=orders-a,orders-b", "transaction=tx-1", "records=3"}, []string{"produced orders-a 3", "produced orders-b 3"}, "error"},
		kafkaCase{"denied transaction", "franz", "transaction", []string{"topic=orders-a", "transaction=evil"}, []string{"error 53"}, "produced"},
		kafkaCase{"several topics", "franz", "consume", []string{"topic=orders-a,orders-b", "records=40"}, []string{"consumed orders-a", "consumed orders-b"}, "error"},
		kafkaCase{"topics that may be seen", "franz", "topics", nil, []string{"topic orders-a", "topic orders-b"}, "secret"},
		kafkaCase{"an ACL", "franz", "acl", []string{"topic=orders-a"}, []string{"error 31"}, ""},
	)
	if version >= "4" {
		cases = append(cases, kafkaCase{"new groups", "franz", "group848", []string{"topic=orders-a", "group=g-848", "records=5"}, []string{"consumed orders-a"}, "error"})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out := client.kafka(t, b, c.library, c.operation, c.args...)
			defer func() {
				if t.Failed() {
					t.Log(n.headgate(t, "observe", "--last", "30"))
				}
			}()
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("want %q in:\n%s", want, out)
				}
			}
			if c.never != "" && strings.Contains(out, c.never) {
				t.Errorf("%q in:\n%s", c.never, out)
			}
		})
	}
	kafkaTools(t, client, b)
	if version >= "4" {
		t.Run("logging in", func(t *testing.T) { kafkaLogin(t, client, b) })
		t.Run("TLS", func(t *testing.T) { kafkaTLS(t, client, b, secrets) })
		t.Run("certificates of clients", func(t *testing.T) { kafkaCertificates(t, client, b, secrets) })
		t.Run("share groups", func(t *testing.T) { kafkaShare(t, client, b) })
	}
	t.Run("seen", func(t *testing.T) { kafkaFlows(t, n) })
}
