package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const kafkaPort = 9092

// kafkaSize is a size of records, with the topic that has such.
type kafkaSize struct {
	name   string
	bytes  int
	stored int // MB in the topic that is consumed, for all partitions
}

var kafkaSizes = []kafkaSize{{"1 KB", 1000, 400}, {"100 KB", 100_000, 400}}

const kafkaPartitions = 4

// kafka measures one broker that three clients reach: directly, through headgate's
// rules, and through a proxy of Kafka's protocol, which is not transparent.
func (w *world) kafka() ([]table, error) {
	g, err := w.newGated()
	if err != nil {
		return nil, err
	}
	if err := g.isolateProxy(); err != nil { // before the broker takes all of the processors to start
		return nil, err
	}
	server, address, err := g.endpoint("broker")
	if err != nil {
		return nil, err
	}
	broker := netip.AddrPortFrom(address, kafkaPort)
	if err := w.startBroker(server, broker); err != nil {
		return nil, err
	}
	sides, err := w.kafkaSides(g, broker)
	if err != nil {
		return nil, err
	}
	if err := g.apply(policyHead("broker", "broker") + fmt.Sprintf(`  - fromEndpoints: [{matchLabels: {app: direct}}, {matchLabels: {app: peer}}]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
      rules: {kafka: [{role: produce, topic: "bench-*"}, {role: consume, topic: "bench-*"}]}
`, kafkaPort, kafkaPort)); err != nil {
		return nil, err
	}
	direct := &sides[0]
	var works []work
	for _, size := range kafkaSizes {
		produced, consumed := fmt.Sprintf("bench-produced-%d", size.bytes), fmt.Sprintf("bench-consumed-%d", size.bytes)
		if err := w.fill(direct, produced, consumed, size); err != nil {
			return nil, err
		}
		for _, one := range []struct{ what, operation, topic string }{
			{"produce", "load-produce", produced}, {"consume", "load-consume", consumed},
		} {
			works = append(works, work{
				title: one.what + ", records of " + size.name, unit: "MB", loadOptions: loadOptions{Seconds: w.seconds, drive: func(s *side, do work) (sample, error) {
					return w.kafkaLoad(s, one.operation, one.topic, "size="+strconv.Itoa(size.bytes), "for="+strconv.Itoa(int(1000*do.Seconds)))
				}},
			})
		}
	}
	return w.measure(sides, works)
}

// kafkaSides are a client each, so that rules can tell them apart.
func (w *world) kafkaSides(g *gated, broker netip.AddrPort) ([]side, error) {
	sides := []side{{name: "direct"}, {name: "headgate", carrier: "headgate"}, {name: "kafka-proxy", carrier: "kafka-proxy"}}
	for i, app := range []string{"direct", "client", "through"} {
		n, _, err := g.endpoint(app)
		if err != nil {
			return nil, err
		}
		sides[i].client, sides[i].to = n, broker
	}
	if _, err := exec.LookPath(w.kafkaProxy); err != nil {
		fmt.Fprintf(os.Stderr, "bench: kafka-proxy is left out: %v\n", err)
		return sides[:2], nil
	}
	n, addr, err := g.endpoint("peer")
	if err != nil {
		return nil, err
	}
	sides[2].to = netip.AddrPortFrom(addr, kafkaPort)
	return sides, w.start(n, "kafka-proxy", true, "", w.kafkaProxy, "server", "--dynamic-listeners-disable", "--http-disable",
		"--log-level", "warn", "--bootstrap-server-mapping", fmt.Sprintf("%s,%s", broker, sides[2].to))
}

const brokerConfig = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@localhost:9093
listeners=PLAINTEXT://BROKER,CONTROLLER://localhost:9093
advertised.listeners=PLAINTEXT://BROKER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=DATA
auto.create.topics.enable=false
offsets.topic.replication.factor=1
log.segment.bytes=67108864
log.retention.bytes=134217728
log.retention.check.interval.ms=500
log.segment.delete.delay.ms=0
`

// startBroker starts a broker of Kafka that keeps its data in memory: no disk is to
// decide.
func (w *world) startBroker(n *netns, at netip.AddrPort) error {
	jars, err := filepath.Glob(filepath.Join(w.kafkaParts, "4*"))
	if err != nil || len(jars) == 0 {
		return fmt.Errorf("find Kafka in %q: 'make parts' puts it there", w.kafkaParts)
	}
	data, err := os.MkdirTemp("/dev/shm", "hgb-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	w.undo = append(w.undo, func() { _ = os.RemoveAll(data) })
	config, err := w.write("kafka.properties", brokerConfig, "BROKER", at.String(), "DATA", data)
	if err != nil {
		return err
	}
	classes := filepath.Join(jars[len(jars)-1], "*")
	if _, err := w.run(n, "setup", "", "java", "-cp", classes, "kafka.tools.StorageTool", "format", "-t", "hgB3nchhgB3nchhgB3nchQ", "-c", config); err != nil {
		return err
	}
	return w.start(n, "server", false, "", "java", "-Xmx1g", "-Xms1g", "-cp", classes, "kafka.Kafka", config)
}

// fill makes the topics of a size, and puts into one what is consumed.
func (w *world) fill(s *side, produced, consumed string, size kafkaSize) error {
	var err error
	for range 60 { // the broker may be starting
		_, err = w.kafkaRun(s, "create", produced+","+consumed, "partitions="+strconv.Itoa(kafkaPartitions), "seconds=10")
		if err == nil || strings.Contains(err.Error(), "error 36") {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	if err == nil {
		_, err = w.kafkaLoad(s, "load-produce", consumed, "size="+strconv.Itoa(size.bytes), "for=60000", "most="+strconv.Itoa(size.stored*1_000_000))
	}
	if err != nil {
		return fmt.Errorf("fill topics: %w\n%s", err, w.logs())
	}
	return nil
}

// kafkaLoad does a piece of work by franz-go, in a program of its own.
func (w *world) kafkaLoad(s *side, operation, topic string, args ...string) (x sample, err error) {
	out, err := w.kafkaRun(s, operation, topic, append(args, "seconds=90", "partitions="+strconv.Itoa(kafkaPartitions))...)
	if err != nil {
		return x, err
	}
	if err := json.Unmarshal(out, &x); err != nil {
		return x, fmt.Errorf("read what the load printed: %w: %s", err, out)
	}
	return x, nil
}

func (w *world) kafkaRun(s *side, operation, topic string, args ...string) ([]byte, error) {
	args = append([]string{"franz", operation, "broker=" + s.to.String(), "topic=" + topic}, args...)
	out, err := w.run(s.client, "client", "", w.kafkaClients, args...)
	if err == nil && strings.HasPrefix(string(out), "error") {
		err = errors.New(strings.TrimSpace(string(out)))
	}
	return out, err
}
