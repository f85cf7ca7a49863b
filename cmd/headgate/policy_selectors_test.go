package main

import (
	"encoding/json"
	"testing"
)

// TestSelectors lists the selectors of files, and those of an agent.
func TestSelectors(t *testing.T) {
	for _, format := range []string{formatTable, formatJSON} {
		r := command(t, "", "policy", "selectors", "--policy", verdictPolicies, "--world", verdictCases, "-o", format)
		if r.code != exitDone || r.err != "" {
			t.Fatalf("exit code %d, stderr %q", r.code, r.err)
		}
		golden(t, "verdict/selectors."+format, r.out)
	}
	r := command(t, empireAgent().serve(t), "policy", "selectors", "-o", "json")
	var got []selectorView
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got) != 1 {
		t.Fatalf("exit code %d, stderr %q, error %v: %s", r.code, r.err, err, r.out)
	}
	if s := got[0]; len(s.Subjects) != 1 || len(s.Peers) != 1 || len(s.Endpoints) != 1 || s.Endpoints[0] != "default/deathstar" {
		t.Errorf("got %+v", s)
	}
}
