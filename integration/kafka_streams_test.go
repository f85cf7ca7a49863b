package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Rules for a program of Kafka Streams, as docs/kafka.md has them: it reads one topic,
// writes another, and has topics, a group and transactions in its own name.
const (
	streamsReads   = `role: consume, topic: streams-plaintext-input, group: "words*"`
	streamsWrites  = `role: produce, topic: streams-wordcount-output, transactionalID: "words-*"`
	streamsOwn     = `topic: "words-*", group: "words*", transactionalID: "words-*"`
	streamsCreates = `apiKey: createtopics, topic: "words-*"`
	streamsDeletes = `apiKey: deleterecords, topic: "words-*-repartition"`
	streamsCommits = `apiKey: txnoffsetcommit, topic: streams-plaintext-input, group: "words*", transactionalID: "words-*"`
	streamsJoins   = `apiKey: streamsgroupheartbeat, topic: streams-plaintext-input, group: "words*"`
)

// kafkaStreams runs Kafka's own demonstration of Streams, which counts words, under
// rules: denied, exactly once in a group of the old kind, and in one of the new.
func kafkaStreams(t *testing.T, w *workload, b *broker) {
	if out := b.kafka(t, b, "franz", "create", "topic=streams-plaintext-input,streams-wordcount-output"); strings.Contains(out, "error") {
		t.Fatal(out)
	}
	b.kafka(t, b, "franz", "produce", "topic=streams-plaintext-input", "records=5")
	for _, tt := range []struct {
		name     string
		rules    []string
		settings []string
		denied   string // what it is told; empty: it counts
	}{
		{"denied its transactions", []string{streamsReads, `role: produce, topic: streams-wordcount-output`, `topic: "words-*", group: "words*"`, streamsCreates, streamsDeletes},
			[]string{"processing.guarantee=exactly_once_v2"}, "TransactionalIdAuthorizationException"},
		{"exactly once", []string{streamsReads, streamsWrites, streamsOwn, streamsCreates, streamsDeletes, streamsCommits},
			[]string{"processing.guarantee=exactly_once_v2", "application.id=words-again"}, ""},
		{"a group of the new kind", []string{streamsReads, streamsWrites, streamsOwn, streamsDeletes, streamsJoins},
			[]string{"group.protocol=streams", "application.id=words-new"}, ""},
	} {
		w.node.apply(t, allowKafka("streams", "streams", tt.rules...))
		before, err := b.counted(t)
		if err != nil {
			t.Fatal(err)
		}
		app := w.streams(t, b, tt.settings...)
		eventually(t, 4*patience, tt.name, func() error {
			out := app.text(t)
			n, err := b.counted(t)
			switch {
			case err != nil:
				return err
			case tt.denied != "" && strings.Contains(out, tt.denied), tt.denied == "" && n > before:
				return nil
			case app.over(): // and more is not to be expected
				t.Errorf("%s: %s\n%s", tt.name, out, w.node.headgate(t, "observe", "--protocol", "kafka", "--verdict", "DROPPED", "--last", "20"))
				return nil
			}
			return fmt.Errorf("%d counts, %d before:\n%s", n, before, out)
		})
		app.end(syscall.SIGKILL, patience)
	}
}

// counted is how many words were counted so far.
func (b *broker) counted(t *testing.T) (n int, err error) {
	t.Helper()
	end := b.kafka(t, b, "franz", "end", "topic=streams-wordcount-output")
	if _, err = fmt.Sscanf(end, "end %d", &n); err != nil {
		return 0, fmt.Errorf("%w: %s", err, end)
	}
	return n, nil
}

// streamsProgram is a program of Streams that runs, and the file that it writes to.
type streamsProgram struct {
	*child
	log string
}

func (p *streamsProgram) text(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (p *streamsProgram) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// streams starts the program that counts words.
func (w *workload) streams(t *testing.T, b *broker, settings ...string) *streamsProgram {
	t.Helper()
	dir, err := os.MkdirTemp(baseDir, "streams")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "streams.properties")
	put(t, config, []byte(strings.Join(append([]string{
		"application.id=words", "client.id=app", "bootstrap.servers=" + b.address, "state.dir=" + dir + "/state",
		"commit.interval.ms=200", "default.dsl.store=in_memory",
	}, settings...), "\n")))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(needProgram(t, "java"), "-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", filepath.Join(kafkaJars(t, "streams"), "*"), "org.apache.kafka.streams.examples.wordcount.WordCountDemo", config)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := w.start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end(syscall.SIGKILL, patience) })
	return &streamsProgram{p, log.Name()}
}
