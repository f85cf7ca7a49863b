package knp

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestRefused(t *testing.T) {
	data, err := os.ReadFile("testdata/refused.yaml")
	if err != nil {
		t.Fatal(err)
	}
	policies, err := decodeFile("refused.yaml", data)
	if err == nil || policies != nil {
		t.Fatalf("accepted: %+v", policies)
	}
	if *update {
		if err := os.WriteFile("testdata/refused.golden", []byte(err.Error()+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, readErr := os.ReadFile("testdata/refused.golden")
	if readErr != nil || err.Error()+"\n" != string(want) {
		t.Errorf("differs from the golden file (-update writes it anew): %v\n%v", readErr, err)
	}
}

// TestNothingBehindAKey: where Kubernetes reads that as {}, so do we, and say so.
// Where it would widen a rule, it is refused.
func TestNothingBehindAKey(t *testing.T) {
	for _, spec := range []string{`{podSelector: , ingress: []}`, `{podSelector: {matchLabels: , matchExpressions: }, ingress: []}`} {
		policies, err := decodeFile("p", []byte(knp("p", spec)))
		if err != nil || len(policies[0].Warnings) == 0 || !strings.Contains(policies[0].Warnings[0], "read as {}") {
			t.Errorf("%s: %v %+v", spec, err, policies)
		}
	}
	for _, spec := range []string{
		`{podSelector: {}, ingress: [{from: }]}`, `{podSelector: {}, ingress: [{ports: }]}`, `{podSelector: {}, ingress: [{from: [{podSelector: }]}]}`,
		`{podSelector: {}, ingress: [{from: [{namespaceSelector: }]}]}`, `{podSelector: {}, ingress: }`, `{podSelector: {}, ingress: [~]}`, `{podSelector: {}, policyTypes: }`,
	} {
		if policies, err := decodeFile("p", []byte(knp("p", spec))); err == nil {
			t.Errorf("%s is accepted: %+v", spec, policies)
		}
	}
}
