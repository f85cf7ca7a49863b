package integration

import (
	"path/filepath"
	"strings"
	"testing"
)

// kafkaCertificates has a broker that takes clients by certificate alone: it sees the
// rule's, and the client's is asked for by the gate.
func kafkaCertificates(t *testing.T, client *workload, b *broker, secrets string) {
	over := *b
	over.address = b.at(4, 9096).String()
	dir := t.TempDir()
	pair := func(name string) (p pemPair) {
		p.certificate, p.key = certify(t, b.addr(4))
		put(t, filepath.Join(dir, name+".crt"), p.certificate)
		put(t, filepath.Join(dir, name+".key"), p.key)
		put(t, filepath.Join(dir, name+".pem"), append(p.key, p.certificate...))
		return p
	}
	gate, known := pair("gate"), pair("known")
	pair("stranger")
	for file, text := range map[string][]byte{
		"own/tls.crt": gate.certificate, "own/tls.key": gate.key, "own/clients.crt": known.certificate,
		"theirs/ca.crt": b.certificate, "theirs/tls.crt": b.known.certificate, "theirs/tls.key": b.known.key,
	} {
		put(t, filepath.Join(secrets, "default", file), text)
	}
	try := func(want, as string, args ...string) {
		t.Helper()
		out := client.kafka(t, &over, "franz", args[0], append(args[1:], "ca="+filepath.Join(dir, "gate.crt"),
			"certificate="+filepath.Join(dir, as+".crt"), "key="+filepath.Join(dir, as+".key"))...)
		if !strings.Contains(out, want) || want != "error" && strings.Contains(out, "error:") {
			t.Errorf("%s, %v: want %q in:\n%s", as, args, want, out)
		}
	}
	rules := func(originating string) string {
		return strings.Replace(allowKafkaAt(9096, "certificates", "client", `role: produce, topic: "orders-*"`), "      rules:",
			"      terminatingTLS: {secret: {name: own}, trustedCA: clients.crt}\n      originatingTLS: {"+originating+"}\n      rules:", 1)
	}
	client.node.apply(t, rules("secret: {name: theirs}, certificate: tls.crt"))
	try("produced orders-a 3", "known", "produce", "topic=orders-a", "records=3")
	try("error 29", "known", "produce", "topic=secret", "seconds=20")
	try("error", "stranger", "produce", "topic=orders-a", "seconds=3")
	try("error", "none", "produce", "topic=orders-a", "seconds=3")
	seen := func(wants ...string) {
		t.Helper()
		flows := client.node.headgate(t, "observe", "--port", "9096", "--last", "2000")
		for _, want := range wants {
			if !strings.Contains(flows, want) {
				t.Errorf("no flow says %q:\n%s", want, flows[max(0, len(flows)-4<<10):])
			}
		}
	}
	seen("the client didn't provide a certificate", "certificate signed by unknown authority")

	// Kafka's own client says why.
	producer := func(as string) string {
		lines := []string{"security.protocol=SSL", "ssl.truststore.type=PEM", "ssl.truststore.location=" + filepath.Join(dir, "gate.crt")}
		if as != "" {
			lines = append(lines, "ssl.keystore.type=PEM", "ssl.keystore.location="+filepath.Join(dir, as+".pem"))
		}
		put(t, filepath.Join(dir, "java.properties"), []byte(strings.Join(lines, "\n")))
		return client.java(t, &over, "from java\n", "org.apache.kafka.tools.ConsoleProducer", "--topic", "orders-a",
			"--command-config", filepath.Join(dir, "java.properties"), "--max-block-ms", "30000") + "done"
	}
	if out := producer("known"); out != "done" {
		t.Errorf("Java with a certificate: %s", out)
	}
	for _, as := range []string{"", "stranger"} {
		if out := producer(as); !strings.Contains(out, "SslAuthenticationException") {
			t.Errorf("Java with certificate %q: %s", as, out)
		}
	}

	// A rule without a certificate has none to show.
	client.node.apply(t, rules("secret: {name: theirs}"))
	try("error", "known", "produce", "topic=orders-a", "seconds=3")
	seen("the server ended TLS: remote error")
}
