package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
)

// TestShipAndCurlAgree sends the story's requests with both clients: the story
// must not depend on which of them a machine has.
func TestShipAndCurlAgree(t *testing.T) {
	server := httptest.NewServer(deathstar())
	defer server.Close()
	for _, tc := range []struct {
		method, path string
		want         outcome
	}{
		{"POST", landingPath, landed},
		{"PUT", exhaustPath, exploded},
		{"GET", "/v1/", ""},
		{"GET", landingPath, ""},
	} {
		args := clientCommand(tc.method, server.URL+tc.path, false)
		answers := map[string]answer{"ship": shipAnswer(t, args)}
		if curl := findCurl(); curl != "" {
			answers["curl"] = curlAnswer(t, curl, args)
			if answers["curl"] != answers["ship"] {
				t.Errorf("%s %s: curl got %+v, ship got %+v", tc.method, tc.path, answers["curl"], answers["ship"])
			}
		}
		for client, got := range answers {
			if judge(got) != tc.want {
				t.Errorf("%s %s with %s: got %q of %+v, want %q", tc.method, tc.path, client, judge(got), got, tc.want)
			}
		}
	}
}

func shipAnswer(t *testing.T, args []string) answer {
	t.Helper()
	var out, diag bytes.Buffer
	err := runShip(context.Background(), args, &out, &diag)
	var exit exitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("ship %v: %v", args, err)
	}
	got, err := parseAnswer(out.String(), int(exit))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func curlAnswer(t *testing.T, curl string, args []string) answer {
	t.Helper()
	cmd := exec.Command(curl, args...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("curl %v: %v", args, err)
	}
	got, err := parseAnswer(string(out), cmd.ProcessState.ExitCode())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestShipTimesOut wants a silent server to look like a drop, and a closed port
// not to.
func TestShipTimesOut(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + silent.Addr().String() + landingPath
	args := []string{"-max-time", "0.2", "-X", "POST", "-w", statusFormat, url}
	if got := shipAnswer(t, args); judge(got) != dropped {
		t.Errorf("silence: got %+v, want a drop", got)
	}
	silent.Close()
	if got := shipAnswer(t, args); judge(got) != "" || got.exit != curlRefused {
		t.Errorf("closed port: got %+v, want exit code %d", got, curlRefused)
	}
}

func TestParseAnswerRefusesOutputWithoutStatus(t *testing.T) {
	for _, output := range []string{"", "Ship landed", "Ship landed\n", "20\n", "20x\n", "-20\n"} {
		if got, err := parseAnswer(output, 0); err == nil {
			t.Errorf("%q: got %+v, want an error", output, got)
		}
	}
}

func TestDeathstarListsItself(t *testing.T) {
	server := httptest.NewServer(deathstar())
	defer server.Close()
	got := shipAnswer(t, clientCommand("GET", server.URL+"/v1/", false))
	for _, path := range []string{landingPath, exhaustPath} {
		if got.status != 200 || !strings.Contains(got.body, path) {
			t.Errorf("got %+v, want 200 and %s", got, path)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"ship"}, {"cleanup"}, {"in", "x"}, {"etc", "x"}, {"tarkin"}, {"--nonsense"}, {"cleanup", t.TempDir()}} {
		if err := dispatch(t.Context(), args); err == nil {
			t.Errorf("%v: got no error", args)
		}
	}
}
