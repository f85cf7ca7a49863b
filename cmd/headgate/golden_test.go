package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// updateEnv set to anything rewrites the golden files.
const updateEnv = "HEADGATE_UPDATE_GOLDEN"

// golden compares with testdata/NAME. Times that pass are masked.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = regexp.MustCompile(`up 1m3\ds`).ReplaceAllString(got, "up 1m30s")
	got = regexp.MustCompile(`("started": "|started: ")[^"]*"`).ReplaceAllString(got, `${1}TIME"`)
	file := filepath.Join("testdata", name)
	if os.Getenv(updateEnv) != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; make it with %s=1", err, updateEnv)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", file, got, want)
	}
}

// TestGolden holds every listing to its text, in every format.
func TestGolden(t *testing.T) {
	for name, args := range map[string]string{
		"endpoint_add":     "endpoint add deathstar --netns deathstar --label org=empire",
		"endpoint_list":    "endpoint list",
		"endpoint_get":     "endpoint get deathstar",
		"endpoint_label":   "endpoint label deathstar org=empire tier-",
		"service_add":      "service add deathstar --vip 10.96.0.10:80/TCP --selector class=deathstar",
		"service_list":     "service list",
		"service_get":      "service get deathstar",
		"service_headless": "service get rebels",
		"service_remove":   "service backend remove deathstar tie",
		"namespace_label":  "namespace label rebels team=siege",
		"policy_list":      "policy list",
		"policy_get":       "policy get",
		"policy_get_one":   "policy get cnp default/rule1",
		"policy_delete":    "policy delete cnp default/rule1",
		"identity_list":    "identity list",
		"bpf_policy":       "bpf policy list deathstar",
		"config_get":       "config get",
		"status":           "status",
	} {
		t.Run(name, func(t *testing.T) {
			socket := (&fakeAgent{}).serve(t)
			for _, format := range []string{formatTable, formatJSON, formatYAML} {
				got := command(t, socket, append(strings.Fields(args), "-o", format)...)
				if got.code != exitDone || got.err != "" {
					t.Fatalf("%s: exit code %d, stderr %q", format, got.code, got.err)
				}
				if format == formatJSON && !json.Valid([]byte(got.out)) {
					t.Errorf("not JSON: %s", got.out)
				}
				if i := strings.IndexFunc(got.out, unprintable); i >= 0 {
					t.Errorf("%s: would reach the terminal: %q", format, got.out[i:min(i+20, len(got.out))])
				}
				golden(t, name+"."+format, got.out)
			}
		})
	}
}

// TestEndpointAddJSON holds the keys that outside checks read.
func TestEndpointAddJSON(t *testing.T) {
	socket := (&fakeAgent{}).serve(t)
	got := command(t, socket, "endpoint", "add", "deathstar", "--netns", "deathstar", "-o", "json")
	var keys map[string]any
	if err := json.Unmarshal([]byte(got.out), &keys); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "namespace", "id", "identity", "labels", "ips", "interface", "policyRevision"} {
		if _, ok := keys[key]; !ok {
			t.Errorf("no key %q in %s", key, got.out)
		}
	}
	if id, ok := keys["identity"].(float64); !ok || id != 300 {
		t.Errorf("identity is %v, want the number 300", keys["identity"])
	}
}

// TestEmptyListings wants lists, not null.
func TestEmptyListings(t *testing.T) {
	for _, v := range []any{viewEndpoint(nil), viewStatus(nil), viewChanges(0, false, nil, nil), viewService(nil), validate("x", []byte("kind: x"))} {
		text, err := encodeJSON(v)
		if err != nil || strings.Contains(string(text), "null") {
			t.Errorf("error %v, got %s", err, text)
		}
	}
}

func TestSickStatus(t *testing.T) {
	socket := (&fakeAgent{status: sickStatus}).serve(t)
	got := command(t, socket, "status")
	if got.code != exitFailed {
		t.Errorf("exit code %d, want %d", got.code, exitFailed)
	}
	golden(t, "status_sick.table", got.out)
	golden(t, "status_sick.stderr", got.err)
}
