package main

import "testing"

// TestLint holds the warnings on what was probably not meant to their text.
func TestLint(t *testing.T) {
	r := command(t, "", "policy", "validate", "testdata/lint/suspicious.yaml")
	if r.code != exitDone {
		t.Errorf("warnings are no failure: exit code %d", r.code)
	}
	golden(t, "lint/suspicious.stderr", r.err)
	r = command(t, "", "policy", "validate", "testdata/lint/good.yaml", verdictPolicies)
	if r.code != exitDone || r.err != "" {
		t.Errorf("exit code %d, stderr %q, want no warning", r.code, r.err)
	}
}

// TestLintWorld warns of selectors that select nobody who is known.
func TestLintWorld(t *testing.T) {
	r := command(t, "", "policy", "validate", "testdata/lint/good.yaml", verdictPolicies, "--cases", verdictCases)
	if r.code != exitDone {
		t.Errorf("exit code %d", r.code)
	}
	golden(t, "lint/world.stderr", r.err)
}
