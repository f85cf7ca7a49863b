package verdict

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/parsers/http"

	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/policy/decode"
)

const testWorld = `
endpoints:
- {name: web, labels: {app: web, version: 2, canary: true}, ips: [10.0.0.1], namedPorts: {http: 8080}}
- {name: db, labels: {app: db}, ips: [10.0.0.2]}
services:
- {name: db, selector: {app: db}, ips: [10.96.0.1]}
- {name: bank, ips: [203.0.113.5]}
nodes: [{name: n1, labels: {role: worker}, ips: [172.16.0.1]}]
`

const testPolicies = `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web}
spec:
  endpointSelector: {matchLabels: {version: "2"}}
  egress:
  - toServices: [{k8sService: {serviceName: db, namespace: default}}, {k8sService: {serviceName: bank, namespace: default}}]
  - toNodes: [{matchLabels: {role: worker}}]
  ingress:
  - fromEntities: [world]
    toPorts:
    - ports: [{port: http, protocol: TCP}]
      rules: {http: [{method: GET, path: "/", headers: ["X-N: 5"]}]}
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: init}
spec:
  endpointSelector: {matchLabels: {reserved:init: ""}}
  egress: [{toEntities: [host]}]
`

// newJudge makes a judge of the test's world.
func newJudge(t *testing.T) *Judge {
	t.Helper()
	policies, err := decode.Decode("test", []byte(testPolicies))
	if err != nil {
		t.Fatal(err)
	}
	var world World
	if err := yaml.Unmarshal([]byte(testWorld), &world); err != nil {
		t.Fatal(err)
	}
	j, err := New(&world, policies, http.NormalPath)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestEnds asks about ends of every kind.
func TestEnds(t *testing.T) {
	j := newJudge(t)
	for question, want := range map[string]string{
		"{from: {endpoint: web}, to: {endpoint: db}, port: 1}":                                                           "allowed default/web egress[0]",
		"{from: {endpoint: web}, to: {ip: 203.0.113.5}, port: 1}":                                                        "allowed default/web egress[0]",
		"{from: {endpoint: web}, to: {ip: 203.0.113.6}, port: 1}":                                                        "denied ",
		"{from: {endpoint: web}, to: {ip: '::ffff:10.0.0.2'}, port: 1}":                                                  "allowed default/web egress[0]",
		"{from: {endpoint: web}, to: {node: n1}, port: 1}":                                                               "allowed default/web egress[1]",
		"{from: {endpoint: web}, to: {ip: 172.16.0.1}, port: 1}":                                                         "allowed default/web egress[1]",
		"{from: {endpoint: web}, to: {entity: host}, port: 1}":                                                           "allowed default/web egress[1]",
		"{from: {endpoint: web}, to: {entity: kube-apiserver}, port: 1}":                                                 "denied ",
		"{from: {endpoint: web}, to: {ip: 10.0.0.1}, port: 1}":                                                           "allowed ",
		"{from: {entity: init}, to: {entity: host}, port: 1}":                                                            "allowed init egress[0]",
		"{from: {entity: init}, to: {endpoint: db}, port: 1}":                                                            "denied ",
		"{from: {entity: health}, to: {endpoint: db}, port: 1}":                                                          "allowed ",
		"{from: {ip: 192.0.2.1}, to: {ip: 192.0.2.2}, port: 1}":                                                          "allowed ",
		"{from: {ip: '2001:db8::1'}, to: {endpoint: web}, port: http, l7: {http: {headers: {x-n: 5}}}}":                  "allowed default/web ingress[0].toPorts[0].http[0]",
		"{from: {entity: world}, to: {endpoint: web}, port: 8080, l7: {http: {headers: [[x-n, 5]], path: '/a/..'}}}":     "allowed default/web ingress[0].toPorts[0].http[0]",
		"{from: {entity: world}, to: {endpoint: web}, port: 8080, l7: {http: {headers: [[x-n, 5]], path: x}}}":           "denied ",
		"{from: {entity: world}, to: {endpoint: web}, port: 8080, l7: {kafka: {apiKey: produce}}}":                       "denied ",
		"{from: {entity: world}, to: {endpoint: web}, port: 8080, protocol: UDP}":                                        "denied ",
		"{from: {entity: world}, to: {endpoint: db}, icmpType: 8}":                                                       "allowed ",
		"{direction: egress, from: {endpoint: web}, to: {ip: '2001:db8::1'}, icmpType: 128}":                             "denied ",
		"{direction: ingress, from: {endpoint: db}, to: {endpoint: web}, port: http, l7: {http: {headers: {x-n: '5'}}}}": "denied ",
	} {
		var q Question
		if err := yaml.Unmarshal([]byte(question), &q); err != nil {
			t.Fatal(err)
		}
		a, err := j.Explain(&q)
		if err != nil {
			t.Errorf("%s: %v", question, err)
		} else if got := a.Verdict + " " + a.Rule; got != want || a.Reason == "" {
			t.Errorf("%s: %s, want %s: %s", question, got, want, a.Reason)
		}
	}
}

// TestAdvice takes the advice of an explanation, and is let in.
func TestAdvice(t *testing.T) {
	j := newJudge(t)
	q := Question{Direction: "ingress", From: End{Entity: "world"}, To: End{Endpoint: "web"}, Port: "8081", L7: &L7{HTTP: &HTTP{Method: "PUT"}}}
	for _, step := range []struct {
		advice string
		follow func()
	}{
		{"(it has http/TCP)", func() { q.Port = "8080" }},
		{"send header X-N", func() { q.L7.HTTP.Headers = Headers{{"X-N", "5"}} }},
		{"allow method PUT in default/web", func() { q.L7.HTTP.Method = "GET" }},
	} {
		a, err := j.Explain(&q)
		if err != nil || a.Verdict != Denied || !strings.Contains(strings.Join(a.Sides[0].Changes, "; "), step.advice) {
			t.Fatalf("error %v, got %+v, want %q", err, a.Sides, step.advice)
		}
		step.follow()
	}
	if a, err := j.Explain(&q); err != nil || a.Verdict != Allowed {
		t.Errorf("error %v, got %+v", err, a)
	}
}

// TestAudit says what a policy that audits would deny, and allows it.
func TestAudit(t *testing.T) {
	policies, err := decode.Decode("test", []byte(`
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: quiet, annotations: {headgate.dev/mode: audit}}
spec: {endpointSelector: {}, ingress: [{fromEntities: [host]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	j, err := New(&World{Endpoints: []Endpoint{{Name: "web"}}}, policies, http.NormalPath)
	if err != nil {
		t.Fatal(err)
	}
	for entity, would := range map[string]bool{"world": true, "host": false} {
		a, err := j.Decide(&Question{From: End{Entity: entity}, To: End{Endpoint: "web"}, Port: "1"})
		if err != nil || a.Verdict != Allowed || strings.Contains(a.Reason, "audit mode would deny it") != would {
			t.Errorf("%s: error %v, got %+v", entity, err, a)
		}
	}
}
