package verdict

import (
	"fmt"
	"strings"
	"testing"

	"github.com/headgate/headgate/parsers/http"
	"github.com/headgate/headgate/policy/decode"
)

// TestKafkaAdvice wants advice that can be followed: a rule that is to be added is
// added, and lets the request in.
func TestKafkaAdvice(t *testing.T) {
	const rules = `{role: produce, topic: "orders-*"}, {role: consume, topic: "orders-*", group: "g-*"}, {role: produce, topic: "orders-*", transactionalID: "tx-*"}`
	ask := func(rules string, k *Kafka) Answer {
		t.Helper()
		policies, err := decode.Decode("test", fmt.Appendf(nil, `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: kafka}
spec: {endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "9092", protocol: TCP}], rules: {kafka: [%s]}}]}]}
`, rules))
		if err != nil {
			t.Fatal(err)
		}
		j, err := New(&World{Endpoints: []Endpoint{{Name: "broker"}}}, policies, http.NormalPath)
		if err != nil {
			t.Fatal(err)
		}
		a, err := j.Explain(&Question{Direction: "ingress", From: End{Entity: "world"}, To: End{Endpoint: "broker"}, Port: "9092", L7: &L7{Kafka: k}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, tt := range []struct {
		request Kafka
		want    string
	}{
		{Kafka{APIKey: "produce", Topic: "secret"}, "allow topic secret in default/kafka ingress[0].toPorts[0].kafka[0]"},
		{Kafka{APIKey: "joingroup", Group: "other"}, "allow group other in default/kafka ingress[0].toPorts[0].kafka[1]"},
		{Kafka{APIKey: "initproducerid", TransactionalID: "evil"}, "allow transactional id evil in default/kafka ingress[0].toPorts[0].kafka[2]"},
		{Kafka{APIKey: "createtopics", Topic: "orders-a"}, `add {apiKey: createtopics, topic: "orders-a"} beside default/kafka ingress[0].toPorts[0].kafka[0]`},
		{Kafka{APIKey: "createacls"}, "add {apiKey: createacls} beside default/kafka ingress[0].toPorts[0].kafka[0]"},
		{Kafka{APIKey: "describetopicpartitions", Topic: "secret"}, `add {apiKey: describetopicpartitions, topic: "secret"} beside default/kafka ingress[0].toPorts[0].kafka[0]`},
		{Kafka{APIKey: "txnoffsetcommit", Topic: "in", Group: "g-1", TransactionalID: "tx-1"}, "allow topic in in default/kafka ingress[0].toPorts[0].kafka[2]"},
	} {
		k := tt.request
		a := ask(rules, &k)
		got := strings.Join(a.Sides[0].Changes, "; ")
		if a.Verdict != Denied || got != tt.want {
			t.Errorf("%+v: %s, %q, want %q", k, a.Verdict, got, tt.want)
		}
		if rule, _, ok := strings.Cut(strings.TrimPrefix(got, "add "), " beside"); ok {
			if a := ask(rules+", "+rule, &k); a.Verdict != Allowed {
				t.Errorf("%+v: %s is not enough: %+v", k, rule, a.Sides)
			}
		}
	}
	// A topic alone admits no administration of it: its advice says what does.
	k := &Kafka{APIKey: "deletetopics", Topic: "a"}
	if a := ask("{topic: a}", k); strings.Join(a.Sides[0].Changes, "") != `add {apiKey: deletetopics, topic: "a"} beside default/kafka ingress[0].toPorts[0].kafka[0]` {
		t.Errorf("%+v", a.Sides)
	}
	if a := ask(`{role: produce, topic: a}`, &Kafka{APIKey: "fetch", Topic: "a"}); strings.Join(a.Sides[0].Changes, "") != `add {role: consume, topic: "a"} beside default/kafka ingress[0].toPorts[0].kafka[0]` {
		t.Errorf("%+v", a.Sides)
	}
}
