package cnp

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
)

func annotated(doc, annotations string) string {
	return strings.Replace(doc, "metadata: {", "metadata: {annotations: {"+annotations+"}, ", 1)
}

func kafka(rules string) string {
	return cnp("p", `{`+web+`, ingress: [{toPorts: [{ports: [{port: "9092", protocol: TCP}], rules: {kafka: [`+rules+`]}}]}]}`)
}

// questions puts the same beginning before each request.
func questions(begin string, requests map[string]string) map[string]string {
	out := map[string]string{}
	for r, want := range requests {
		out[begin+r] = want
	}
	return out
}

// Note 10.
func TestKafkaRoles(t *testing.T) {
	const begin = "ingress default/web < world TCP 9092 kafka="
	newCluster(t, kafka(`{role: produce, topic: plans, clientID: c}`)).Expect(questions(begin, map[string]string{
		"produce,topic=plans,client=c":    "allow default/p ingress[0].toPorts[0].kafka[0]",
		"produce,topic=other,client=c":    "deny",
		"produce,topic=plans,client=d":    "deny",
		"produce,topic=plans":             "deny",
		"metadata,topic=plans,client=c":   "allow",
		"metadata,topic=other,client=c":   "deny", // the topic binds it too
		"metadata,client=c":               "allow",
		"apiversions,client=c":            "allow",
		"apiversions,client=d":            "deny", // and so does the client id
		"initproducerid,client=c":         "allow",
		"initproducerid,client=c,txn=x":   "deny",
		"fetch,topic=plans,client=c":      "deny",
		"findcoordinator,client=c":        "deny",
		"createacls,client=c":             "deny",
		"addpartitionstotxn,client=c":     "deny",
		"unknown,topic=plans,client=c":    "deny",
		"createtopics,topic=plans,client": "deny",
	}))
	newCluster(t, kafka(`{role: Consume, topic: "orders-*", group: billing}`)).Expect(questions(begin, map[string]string{
		"fetch,topic=orders-eu":                    "allow",
		"fetch,topic=order":                        "deny",
		"listoffsets,topic=orders-":                "allow",
		"joingroup,group=billing":                  "allow",
		"joingroup,group=other":                    "deny",
		"offsetcommit,group=billing,topic=orders1": "deny",
		"offsetcommit,group=billing,topic=orders-": "allow",
		"heartbeat,group=billing":                  "allow",
		"consumergroupheartbeat,group=billing":     "allow",
		"produce,topic=orders-eu":                  "deny",
	}))
	newCluster(t, kafka(`{role: produce, transactionalID: "pay-*"}`)).Expect(questions(begin, map[string]string{
		"initproducerid,txn=pay-1":     "allow",
		"initproducerid,txn=x":         "deny",
		"endtxn,txn=pay-1":             "allow",
		"produce,topic=any,txn=pay-1":  "allow",
		"produce,topic=any,txn=other1": "deny",
	}))
}

func TestKafkaAPIKeys(t *testing.T) {
	const begin = "ingress default/web < world TCP 9092 kafka="
	newCluster(t, kafka(`{apiKey: Fetch, apiVersion: "4", topic: a}, {apiKey: heartbeat, topic: a}`)).Expect(questions(begin, map[string]string{
		"fetch,topic=a,version=4": "allow default/p ingress[0].toPorts[0].kafka[0]",
		"fetch,topic=a,version=5": "deny",
		"heartbeat":               "allow default/p ingress[0].toPorts[0].kafka[1]", // it carries no topic
		"produce,topic=a":         "deny",
	}))
	newCluster(t, kafka(`{}`)).Expect(questions(begin, map[string]string{
		"createacls": "allow",
		"unknown":    "deny",
	}))
}

// A topic-only Kafka rule does not admit CreateAcls, administration of the topic
// itself, and unknown APIs.
func TestKafkaTopicOnlyRuleIsNotForAdministration(t *testing.T) {
	newCluster(t, kafka(`{topic: a}`)).Expect(questions("ingress default/web < world TCP 9092 kafka=", map[string]string{
		"produce,topic=a":      "allow",
		"fetch,topic=a":        "allow",
		"fetch,topic=b":        "deny",
		"createtopics,topic=a": "deny",
		"deletetopics,topic=a": "deny",
		"sharefetch,topic=a":   "allow",
		"sharefetch,topic=b":   "deny",
		"metadata":             "allow",
		"apiversions":          "allow",
		"joingroup,group=g":    "allow",
		"createacls":           "deny",
		"deleteacls":           "deny",
		"alterconfigs":         "deny",
		"deletegroups,group=g": "deny",
		"initproducerid,txn=x": "deny",
		"unknown":              "deny",
		"unknown,topic=a":      "deny",
	}))
}

func TestDNSRules(t *testing.T) {
	doc := cnp("p", `{endpointSelector: `+client+`, egress: [{toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchName: Cilium.io}, {matchPattern: "*.api.cilium.io"}]}}]}]}`)
	for _, proto := range []string{"UDP", "TCP"} {
		newCluster(t, doc).Expect(questions("egress default/client > kube-system/dns "+proto+" 53 dns=", map[string]string{
			"cilium.io.":      "allow default/p egress[0].toPorts[0].dns[0]",
			"CILIUM.IO":       "allow",
			"a.api.cilium.io": "allow default/p egress[0].toPorts[0].dns[1]",
			"api.cilium.io":   "deny",
			".":               "deny",
		}))
	}
	newCluster(t, doc).Expect(map[string]string{
		"egress default/client > kube-system/dns SCTP 53": "deny",
		"egress default/client > kube-system/dns UDP 54":  "deny",
	})
}

func TestDNSQueryTypes(t *testing.T) {
	rules := func(types string) string {
		return cnp("p", `{endpointSelector: `+client+`, egress: [{toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*", queryTypes: `+types+`}]}}]}]}`)
	}
	for types, want := range map[string]string{"[A, AAAA]": "allow", "[a]": "allow", "[TYPE1]": "allow", "[AAAA]": "deny", "[TXT, MX]": "deny"} {
		newCluster(t, rules(types)).Expect(questions("egress default/client > kube-system/dns UDP 53 dns=", map[string]string{"cilium.io.": want}))
	}
	for _, bad := range []string{"[]", "[B]", "A", "[1]", "[TYPE99999]"} {
		if _, err := Decode("p.yaml", []byte(rules(bad))); err == nil || !strings.Contains(err.Error(), "queryTypes") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestGRPCRules(t *testing.T) {
	rules := func(rules string) string {
		return cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {`+rules+`}}]}]}`)
	}
	const begin = "ingress default/web < world TCP 80 "
	newCluster(t, rules(`grpc: [{service: shop.v1.Orders, method: GetOrder}, {service: "health.*"}]`)).Expect(questions(begin, map[string]string{
		"grpc=shop.v1.Orders/GetOrder":                                           "allow default/p ingress[0].toPorts[0].grpc[0]",
		"grpc=shop.v1.Orders/DeleteOrder":                                        "deny",
		"grpc=shopXv1XOrders/GetOrder":                                           "deny", // a dot is a dot
		"grpc=health.v1.Health/Check":                                            "allow default/p ingress[0].toPorts[0].grpc[1]",
		"POST /shop.v1.Orders/GetOrder content-type:application/grpc":            "allow",
		"POST /shop.v1.Orders/GetOrder Content-Type:application/grpc+proto":      "allow",
		"POST /shop.v1.Orders/GetOrder content-type:application/json":            "deny",
		"POST /shop.v1.Orders/GetOrder":                                          "deny",
		"GET /shop.v1.Orders/GetOrder content-type:application/grpc":             "deny",
		"POST /shop.v1.Orders/GetOrder?x=1 content-type:application/grpc":        "deny",
		"POST /shop.v1.Orders/GetOrder/ content-type:application/grpc":           "deny",
		"POST /x/shop.v1.Orders/GetOrder content-type:application/grpc":          "deny",
		"POST /shop.v1.Orders/GetOrder content-type:application/grpcweb":         "deny",
		"POST /health.v1/Check content-type:application/grpc content-type:x/any": "deny",
	}))
	// gRPC counts as HTTP: both may stand together, and HTTP rules judge calls.
	newCluster(t, rules(`http: [{method: POST, path: /a.B/C}], grpc: [{service: a.B, method: D}]`)).Expect(questions(begin, map[string]string{
		"grpc=a.B/C":  "allow default/p ingress[0].toPorts[0].http[0]",
		"grpc=a.B/D":  "allow default/p ingress[0].toPorts[0].grpc[0]",
		"grpc=a.B/E":  "deny",
		"POST /a.B/C": "allow",
	}))
}

func TestServerNames(t *testing.T) {
	newCluster(t, cnp("p", `{endpointSelector: `+client+`, egress: [{toPorts: [{ports: [{port: "443", protocol: TCP}], serverNames: [www.example.com, "*.api.example.com", "**.deep.example.com"]}]}]}`)).Expect(map[string]string{
		"egress default/client > world TCP 443":                            "redirect default/p egress[0].toPorts[0]",
		"egress default/client > world TCP 80":                             "deny",
		"egress default/client > world TCP 443 sni=www.example.com":        "allow default/p egress[0].toPorts[0].serverNames[0]",
		"egress default/client > world TCP 443 sni=WWW.Example.COM":        "allow", // CVE-2026-53622
		"egress default/client > world TCP 443 sni=example.com":            "deny",
		"egress default/client > world TCP 443 sni=a.api.example.com":      "allow",
		"egress default/client > world TCP 443 sni=a.b.api.example.com":    "deny",
		"egress default/client > world TCP 443 sni=a.b.deep.example.com":   "allow",
		"egress default/client > world TCP 443 sni=":                       "deny",
		"egress default/client > world TCP 443 sni=www.example.com.evil.x": "deny",
		"egress default/client > world TCP 443 GET /":                      "deny",
	})
}

// TestServerNamesAndPorts: where no protocol is written names hold for TCP, and nothing is
// said of UDP; they may hold for every port. A rule without names allows all of them.
func TestServerNamesAndPorts(t *testing.T) {
	names := func(ports string) string {
		return cnp("p", `{endpointSelector: `+client+`, egress: [{toPorts: [{ports: [`+ports+`], serverNames: [www.example.com]}]}]}`)
	}
	newCluster(t, names(`{port: "443"}`)).Expect(map[string]string{
		"egress default/client > world TCP 443 sni=www.example.com": "allow",
		"egress default/client > world TCP 443 sni=evil.example":    "deny",
		"egress default/client > world UDP 443":                     "deny",
	})
	newCluster(t, names(`{port: "0", protocol: TCP}`)).Expect(map[string]string{
		"egress default/client > world TCP 8443 sni=www.example.com": "allow",
		"egress default/client > world TCP 8443 sni=evil.example":    "deny",
		"egress default/client > world UDP 53":                       "deny",
	})
	plain := cnp("q", `{endpointSelector: `+client+`, egress: [{toPorts: [{ports: [{port: "443", protocol: TCP}]}]}]}`)
	newCluster(t, names(`{port: "443", protocol: TCP}`), plain).Expect(map[string]string{
		"egress default/client > world TCP 443": "allow default/q",
	})
	denied := cnp("r", `{endpointSelector: `+client+`, egressDeny: [{toPorts: [{ports: [{port: "443", protocol: TCP}]}]}]}`)
	newCluster(t, names(`{port: "443", protocol: TCP}`), denied).Expect(map[string]string{
		"egress default/client > world TCP 443": "deny default/r",
	})
	// Several lists are one.
	more := cnp("s", `{endpointSelector: `+client+`, egress: [{toPorts: [{ports: [{port: "443", protocol: TCP}], serverNames: [evil.example]}]}]}`)
	newCluster(t, names(`{port: "443", protocol: TCP}`), more).Expect(map[string]string{
		"egress default/client > world TCP 443 sni=www.example.com": "allow default/p",
		"egress default/client > world TCP 443 sni=evil.example":    "allow default/s",
		"egress default/client > world TCP 443 sni=other.example":   "deny",
	})
}

// TestTLSWithoutRules: what is in it is not judged, nor by which name it was asked for.
func TestTLSWithoutRules(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, terminatingTLS: {secret: {name: s}}}]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 80":                 "redirect default/p ingress[0].toPorts[0]",
		"ingress default/web < world TCP 80 sni=any.example": "allow",
		"ingress default/web < world TCP 80 sni=":            "allow",
		"ingress default/web < world TCP 81":                 "deny",
	})
}

func TestHeaderMatches(t *testing.T) {
	rule := func(match string) string {
		return cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{headerMatches: [`+match+`]}]}}]}]}`)
	}
	const begin = "ingress default/web < world TCP 80 GET /"
	for match, want := range map[string][3]string{ // the header as wanted, otherwise, not there
		`{name: X-A, value: b}`:                                        {"allow", "deny", "deny"},
		`{name: X-A}`:                                                  {"allow", "allow", "deny"},
		`{name: X-A, value: b, mismatch: LOG}`:                         {"allow", "allow", "allow"},
		`{name: X-A, value: b, mismatch: ADD}`:                         {"allow", "allow", "allow"},
		`{name: X-A, value: b, mismatch: DELETE}`:                      {"allow", "allow", "allow"},
		`{name: X-A, secret: {name: s}, mismatch: REPLACE}`:            {"allow", "allow", "allow"},
		`{name: X-A, secret: {name: s}}`:                               {"deny", "deny", "deny"},
		`{name: X-A, value: b, secret: {namespace: default, name: s}}`: {"allow", "deny", "deny"},
	} {
		newCluster(t, rule(match)).Expect(map[string]string{begin + " X-A:b": want[0], begin + " X-A:c": want[1], begin: want[2]})
	}
}

func TestDenyOfRequests(t *testing.T) {
	deny := `ingressDeny: [{fromEndpoints: [` + client + `], toPorts: [{` + port80 + `, rules: {http: [{path: /admin.*}]}}]}]`
	for allow, want := range map[string]string{
		`ingress: [{fromEntities: [all]}]`:                                                "allow default/p ingress[0]",
		`ingress: [{toPorts: [{` + port80 + `}]}]`:                                        "allow default/p ingress[0].toPorts[0]",
		`ingress: [{toPorts: [{` + port80 + `, rules: {http: [{}]}}]}]`:                   "allow default/p ingress[0].toPorts[0].http[0]",
		`enableDefaultDeny: {ingress: false}`:                                             "allow default/p ingressDeny[0].toPorts[0]",
		`ingress: [{toPorts: [{` + port80 + `, rules: {grpc: [{}], http: [{}]}}]}]`:       "allow default/p ingress[0].toPorts[0].http[0]",
		`ingress: [{toPorts: [{` + port80 + `}, {` + port80 + `, rules: {http: [{}]}}]}]`: "allow default/p ingress[0].toPorts[0]",
	} {
		newCluster(t, cnp("p", `{`+web+`, `+deny+`, `+allow+`}`)).Expect(map[string]string{
			"ingress default/web < default/client TCP 80":              "redirect",
			"ingress default/web < default/client TCP 80 GET /":        want,
			"ingress default/web < default/client TCP 80 GET /admin":   "deny default/p ingressDeny[0].toPorts[0].http[0]",
			"ingress default/web < default/client TCP 80 GET /admin/x": "deny",
		})
	}
	newCluster(t, cnp("p", `{`+web+`, `+deny+`, ingress: [{fromEntities: [all]}]}`)).Expect(map[string]string{
		"ingress default/web < default/db TCP 80":      "allow",
		"ingress default/web < default/client TCP 443": "allow",
	})
	// By itself it allows nothing, and another kind of rules cannot hide from it.
	newCluster(t, cnp("p", `{`+web+`, `+deny+`}`)).Expect(map[string]string{
		"ingress default/web < default/client TCP 80": "deny",
		"ingress default/web < default/db TCP 80":     "deny",
	})
	newCluster(t, cnp("p", `{`+web+`, `+deny+`}`), cnp("q", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {kafka: [{}]}}]}]}`)).Expect(map[string]string{
		"ingress default/web < default/client TCP 80": "deny default/p ingressDeny[0].toPorts[0]",
		"ingress default/web < default/db TCP 80":     "redirect",
	})
	// A header whose value only a secret knows: to be there is enough to be denied.
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [all]}], ingressDeny: [{toPorts: [{`+port80+`, rules: {http: [{headerMatches: [{name: X-A, secret: {name: s}}]}]}}]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 80 GET / X-A:b": "deny",
		"ingress default/web < world TCP 80 GET /":       "allow",
	})
}

func TestModes(t *testing.T) {
	l4 := cnp("p", `{`+web+`, ingress: [{fromEndpoints: [`+client+`]}], ingressDeny: [{fromEntities: [world]}]}`)
	l7 := cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{path: /a}]}}]}]}`)
	for _, mode := range []string{"audit", "observe"} {
		says := "headgate.dev/mode: " + mode
		// It neither denies, nor switches default deny on, nor allows.
		newCluster(t, annotated(l4, says)).Expect(map[string]string{
			"ingress default/web < default/db TCP 80": "allow",
			"ingress default/web < world TCP 80":      "allow",
		})
		newCluster(t, annotated(l4, says), cnp("q", `{`+web+`, ingress: [{}]}`)).Expect(map[string]string{
			"ingress default/web < default/client TCP 80": "deny",
		})
		// Its L7 rules show requests that are allowed anyway.
		newCluster(t, annotated(l7, says)).Expect(map[string]string{
			"ingress default/web < world TCP 80":        "redirect default/p ingress[0].toPorts[0]",
			"ingress default/web < world TCP 80 GET /b": "allow",
			"ingress default/web < world TCP 81":        "allow",
		})
		newCluster(t, annotated(l7, says), cnp("q", `{`+web+`, ingress: [{}]}`)).Expect(map[string]string{
			"ingress default/web < world TCP 80": "deny",
		})
		newCluster(t, annotated(l7, says), cnp("q", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{path: /c}]}}]}]}`)).Expect(map[string]string{
			"ingress default/web < world TCP 80 GET /a": "deny",
			"ingress default/web < world TCP 80 GET /c": "allow default/q",
		})
	}
	newCluster(t, annotated(l4, "headgate.dev/mode: audit")).Audit().Expect(map[string]string{
		"ingress default/web < default/db TCP 80":     "deny",
		"ingress default/web < default/client TCP 80": "allow default/p ingress[0]",
		"ingress default/web < world TCP 80":          "deny default/p ingressDeny[0]",
	})
	newCluster(t, annotated(l7, "headgate.dev/mode: audit")).Audit().Expect(map[string]string{
		"ingress default/web < world TCP 80 GET /b": "deny",
	})
	newCluster(t, annotated(l7, "headgate.dev/mode: observe")).Audit().Expect(map[string]string{
		"ingress default/web < world TCP 80 GET /b": "allow",
	})
}

func TestDenyResponse(t *testing.T) {
	policies, err := Decode("p", []byte(annotated(cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{path: /a}]}}]}]}`), `headgate.dev/deny-response: "451 Not here"`)))
	if err != nil {
		t.Fatal(err)
	}
	labels, _ := policy.EndpointLabels("default", "", "", nil, map[string]string{"app": "web"})
	_, sets := policy.Resolve(policy.Subject{Labels: labels}, policies[0].Rules, policy.NewIdentities())
	for _, set := range sets {
		if set.DenyResponse == nil || *set.DenyResponse != (policy.DenyResponse{Status: 451, Body: "Not here"}) {
			t.Errorf("%+v", set.DenyResponse)
		}
	}
	if len(sets) != 1 {
		t.Error(sets)
	}
}
