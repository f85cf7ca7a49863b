package integration

import (
	"strings"
	"testing"
)

// kafkaLogin logs in through rules, by mechanisms of one message and of several, and
// sees that who has logged in may do no more than rules say.
func kafkaLogin(t *testing.T, client *workload, b *broker) {
	open := *b
	open.address = b.at(4, 9094).String()
	try := func(want string, library string, args ...string) {
		t.Helper()
		if out := client.kafka(t, &open, library, args[0], args[1:]...); !strings.Contains(out, want) {
			t.Errorf("%s %v: want %q in:\n%s", library, args, want, out)
		}
	}
	client.node.apply(t, allowKafkaAt(9094, "login", "client",
		`role: produce, topic: "orders-*"`, `apiKey: saslhandshake`, `apiKey: saslauthenticate`))
	for _, mechanism := range []string{"plain", "scram"} {
		try("produced orders-a 3", "franz", "produce", "topic=orders-a", "records=3", "user=app", "password=open", "mechanism="+mechanism)
		try("error 29", "franz", "produce", "topic=secret", "records=1", "user=app", "password=open", "mechanism="+mechanism, "seconds=20")
		try("error", "franz", "produce", "topic=orders-a", "records=1", "user=app", "password=wrong", "mechanism="+mechanism, "seconds=2")
	}
	// What follows a handshake of version 0 has no header, so nobody could tell what
	// it is: such a handshake gets no answer.
	try("closed", "raw", "saslv0")
	try("closed", "raw", "tls")

	client.node.apply(t, allowKafkaAt(9094, "login", "client", `role: produce, topic: "orders-*"`))
	try("error", "franz", "produce", "topic=orders-a", "records=1", "user=app", "password=open", "mechanism=plain", "seconds=3")
	seen := client.node.headgate(t, "observe", "--port", "9094", "--last", "1000")
	for _, want := range []string{"begins TLS", "version 0 of API 17 is not known"} {
		if !strings.Contains(seen, want) {
			t.Errorf("no flow says %q:\n%s", want, seen[max(0, len(seen)-4<<10):])
		}
	}
}
