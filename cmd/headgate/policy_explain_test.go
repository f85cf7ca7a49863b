package main

import (
	"fmt"
	"strings"
	"testing"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// words splits a command line at spaces, but not within single quotes.
func words(line string) []string {
	var list []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			list = append(list, part)
			continue
		}
		list = append(list, strings.Fields(part)...)
	}
	return list
}

// TestExplain holds explanations to their text.
func TestExplain(t *testing.T) {
	var all strings.Builder
	for _, question := range []string{
		"--from shop/front --to shop/web --port 8080/TCP",
		"--from shop/front --to shop/web --port 8080/TCP --http 'GET /items'",
		"--from shop/front --to shop/web --port 8080/TCP --http 'PUT /items/1'",
		"--from shop/front --to shop/web --port 8080/TCP --http 'POST /orders'",
		"--from shop/front --to shop/web --port 8080/TCP --http 'POST /orders' --header 'X-Team: other'",
		"--from shop/front --to shop/web --port 8080/TCP --http 'GET /items/%2e%2e/%2Fx'",
		"--from shop/front --to shop/web --port 8081/TCP",
		"--from other/front --to shop/web --port 8080/TCP",
		"--from app=batch,io.kubernetes.pod.namespace=shop --to shop/web --port http/TCP",
		"--from app=batch,io.kubernetes.pod.namespace=shop --to shop/web --port 81/TCP",
		"--from app=batch --to app=batch --port 81/TCP",
		"--from shop/web --to shop/web --port 81/TCP",
		"--from 192.0.2.8 --to shop/web --port 8080/TCP --direction ingress",
		"--from world --to shop/db --port 5432/TCP --direction ingress",
		"--from n2 --to shop/db --port 5432/TCP --direction ingress",
		"--from n2 --to n1 --port 80/TCP --direction ingress",
		"--from shop/probe --to shop/web --port 0/ICMP --direction ingress",
		"--from shop/front --to 198.51.100.1 --port 443/TCP --sni www.example.org",
		"--from shop/front --to 198.51.100.9 --port 443/TCP",
		"--from shop/front --to kube-system/dns --port 53/UDP --dns example.org",
	} {
		r := command(t, "", append(words("policy explain --policy "+verdictPolicies+" --cases "+verdictCases), words(question)...)...)
		if r.code != exitDone {
			t.Fatalf("%s: exit code %d, stderr %q", question, r.code, r.err)
		}
		fmt.Fprintf(&all, "$ headgate policy explain %s\n%s\n", question, r.out)
	}
	golden(t, "verdict/explain.txt", all.String())
	r := command(t, "", words("policy explain --policy "+verdictPolicies+" --cases "+verdictCases+" --from shop/front --to shop/web --port 8080 --http 'PUT /items' -o json")...)
	golden(t, "verdict/explain.json", r.out)
}

// listed is a policy as an agent lists it.
func listed(namespace, name, spec string) *agentv1.Policy {
	return &agentv1.Policy{
		Key:    &agentv1.PolicyKey{Kind: "CiliumNetworkPolicy", Namespace: namespace, Name: name},
		Origin: "/etc/headgate/" + name + ".yaml: document 1",
		Source: fmt.Appendf(nil, "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: %s, namespace: %s}\nspec: %s\n", name, namespace, spec),
	}
}

// empireAgent has a policy that can be read, and endpoints that can be.
func empireAgent() *fakeAgent {
	rebel := &agentv1.Endpoint{
		Name: "xwing", Namespace: "rebels", Labels: map[string]string{"org": "alliance"}, Ips: []string{"10.210.0.12"},
		IdentityLabels: []string{"k8s:io.cilium.k8s.policy.cluster=endor", "k8s:io.cilium.k8s.namespace.labels.team=siege", "k8s:org=alliance"},
	}
	return &fakeAgent{
		endpoints: []*agentv1.Endpoint{deathstar(), rebel},
		policies: []*agentv1.Policy{listed("default", "rule1",
			"{endpointSelector: {matchLabels: {org: empire}}, ingress: [{fromEndpoints: [{matchLabels: {org: empire}}], toPorts: [{ports: [{port: http}]}]}]}")},
	}
}

// TestExplainAgent asks a running agent for policies and endpoints.
func TestExplainAgent(t *testing.T) {
	agent := empireAgent()
	socket := agent.serve(t)
	for question, want := range map[string]string{
		"--from org=empire --to deathstar --port 80/TCP":   "rule:      default/rule1 ingress[0].toPorts[0]",
		"--from org=alliance --to 10.210.0.7 --port http":  "set label org=empire on default/org=alliance (it is alliance)",
		"--from deathstar --to rebels/xwing --port 80/TCP": "allowed: deathstar to rebels/xwing, 80/TCP",
	} {
		r := command(t, socket, append([]string{"policy", "explain"}, words(question)...)...)
		if r.code != exitDone || !strings.Contains(r.out, want) {
			t.Errorf("%s: exit code %d, stderr %q, got:\n%s", question, r.code, r.err, r.out)
		}
	}
}

// TestExplainUsage wants wrong questions refused as wrong usage.
func TestExplainUsage(t *testing.T) {
	for _, question := range []string{
		"", "--from a --to b", "--from a --to b --port 80 --direction in", "--from a --to b --port 80 --host h",
		"--from a --to b --port 80 --dns x --http 'GET /'", "--from a --to b --port 80 --http 'GET /' --header x",
		"--from a --to b --port 80 --grpc x", "--from a --to b --port 80 --kafka 'produce subject=x'",
		"--from a --to b --port 80 --kafka 'consume topic=x'",
	} {
		r := command(t, "", words("policy explain --policy "+verdictPolicies+" "+question)...)
		if r.code != exitUsage {
			t.Errorf("%s: exit code %d, stderr %q", question, r.code, r.err)
		}
	}
}
