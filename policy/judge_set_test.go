package policy

import (
	"strings"
	"testing"
)

// TestHostileServerNames: CVE-2024-32475, CVE-2024-45808, CVE-2025-66220,
// CVE-2026-39821. What cannot be a name in the DNS matches no pattern, and is fit
// for a log.
func TestHostileServerNames(t *testing.T) {
	j, err := CompileSet(&L7Set{Protocol: ProtocolTLS, TLS: []TLSRule{{ServerName: "**.example.com"}, {ServerName: "*"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"a\x00.example.com", "a\n.example.com", "bücher.example.com", "a b.example.com", "..", "a..example.com", "*.example.com/", "\x1b[31m",
	} {
		d := j.Decide(&TLSRequest{ServerName: name})
		if d.Verdict == Allow {
			t.Errorf("%q is allowed", name)
		}
		if strings.ContainsFunc(d.Reason, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q in a log: %q", name, d.Reason)
		}
	}
	long := strings.Repeat("a.", 4000) + "evil.test"
	if d := j.Decide(&TLSRequest{ServerName: long}); len(d.Reason) > 1000 {
		t.Errorf("%d bytes for a log", len(d.Reason))
	}
}

// TestWhatASetDoesNotKnowIsDenied, and no set is compiled in part.
func TestWhatASetDoesNotKnowIsDenied(t *testing.T) {
	requests := map[Protocol]Request{
		ProtocolHTTP: &HTTPRequest{Method: []byte("GET"), Path: []byte("/")}, ProtocolKafka: &KafkaRequest{},
		ProtocolDNS: &DNSRequest{Name: "a"}, ProtocolTLS: &TLSRequest{ServerName: "a"},
	}
	sets := map[Protocol]*L7Set{
		ProtocolHTTP:  {Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}},
		ProtocolKafka: {Protocol: ProtocolKafka, Kafka: []KafkaRule{{}}},
		ProtocolDNS:   {Protocol: ProtocolDNS, DNS: []DNSRule{{}}},
		ProtocolTLS:   {Protocol: ProtocolTLS, TLS: []TLSRule{{}}},
	}
	for of, set := range sets {
		j, err := CompileSet(set)
		if err != nil {
			t.Fatal(err)
		}
		for protocol, r := range requests {
			if d := j.Decide(r); (d.Verdict == Allow) != (of == protocol) {
				t.Errorf("%s rules, a %s request: %+v", of, protocol, d)
			}
		}
		if d := mustCompile(t, &L7Set{Protocol: of}).Decide(requests[of]); d.Verdict == Allow || d.Reason == "" {
			t.Errorf("no %s rules: %+v", of, d)
		}
	}
	for _, bad := range []*L7Set{
		{}, {Protocol: 99},
		{Protocol: ProtocolDNS, DNS: []DNSRule{{Pattern: "a b"}}},
		{Protocol: ProtocolDNS, DNS: []DNSRule{{Pattern: "a", Name: "a"}}},
		{Protocol: ProtocolTLS, TLS: []TLSRule{{ServerName: "a b"}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}, Deny: &L7Rules{Protocol: ProtocolKafka}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Path: "("}}},
		{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{}}, Deny: &L7Rules{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Path: "("}}}},
	} {
		if j, err := CompileSet(bad); err == nil {
			t.Errorf("%+v compiles to %v", bad, j)
		}
	}
}

func mustCompile(t *testing.T, set *L7Set) Judge {
	t.Helper()
	j, err := CompileSet(set)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestNearestMiss says what would have had to differ.
func TestNearestMiss(t *testing.T) {
	kafka := mustCompile(t, &L7Set{Protocol: ProtocolKafka, Kafka: []KafkaRule{
		{APIKeys: []int16{KafkaFetch}, Topic: "other", Ref: Ref{Path: "kafka[0]"}},
		{APIKeys: []int16{KafkaProduce}, Topic: "plans", ClientID: "c", Ref: Ref{Path: "kafka[1]"}},
	}})
	if d := kafka.Decide(&KafkaRequest{APIKey: KafkaProduce, Topic: "secret\x1b", ClientID: "c"}); d.Nearest.Path != "kafka[1]" || d.Reason != `topic "secret\x1b" does not match plans` {
		t.Errorf("%+v", d)
	}
	if d := kafka.Decide(&KafkaRequest{APIKey: 999}); d.Reason != "API 999 is not known" {
		t.Errorf("%+v", d)
	}
	grpc := mustCompile(t, &L7Set{Protocol: ProtocolHTTP, GRPC: []GRPCRule{{Service: "a.B", Method: "C", Ref: Ref{Path: "grpc[0]"}}}})
	if d := grpc.Decide(&GRPCRequest{Service: []byte("a.B"), Method: []byte("D")}); d.Nearest.Path != "grpc[0]" || d.Reason != "method D does not match C" {
		t.Errorf("%+v", d)
	}
	if d := grpc.Decide(&GRPCRequest{Service: []byte("x"), Method: []byte("D")}); d.Nearest.Path != "grpc[0]" || d.Reason != "call /x/D does not match /a.B/C" {
		t.Errorf("%+v", d)
	}
}
