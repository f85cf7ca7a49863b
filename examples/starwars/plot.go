package main

import (
	"fmt"
	"net/http"
	"strings"
)

// outcome is what became of a request, in the story's terms.
type outcome string

const (
	landed   outcome = "landed"
	exploded outcome = "exploded"
	denied   outcome = "403 Access denied"
	dropped  outcome = "no answer"
)

// attempt is one request of one ship, and what should become of it.
type attempt struct {
	ship, method, path string
	v6                 bool
	want               outcome
}

// scene is a part of the story: a policy, put in force, and what ships then try.
type scene struct {
	title    string
	policy   string // file, "" for none
	l7       bool   // whether requests pass the proxy
	attempts []attempt
}

// plot is the whole story. Each scene tries IPv6 once.
func plot() []scene {
	land := func(ship string, want outcome) attempt {
		return attempt{ship: ship, method: http.MethodPost, path: landingPath, want: want}
	}
	exhaust := func(want outcome) attempt {
		return attempt{ship: "tiefighter", method: http.MethodPut, path: exhaustPath, want: want}
	}
	return []scene{{
		title: "No policy: whoever finds the Death Star may land",
		attempts: []attempt{
			land("tiefighter", landed), land("xwing", landed), overIPv6(land("xwing", landed)),
		},
	}, {
		title:  "L3/L4 policy: ships with org=empire, port 80",
		policy: "l3-l4.yaml",
		attempts: []attempt{
			land("tiefighter", landed), land("xwing", dropped), overIPv6(land("xwing", dropped)), exhaust(exploded),
		},
	}, {
		title:  "L7 policy: of those, only POST " + landingPath,
		policy: "l7.yaml",
		l7:     true,
		attempts: []attempt{
			land("tiefighter", landed), exhaust(denied), overIPv6(exhaust(denied)), land("xwing", dropped),
		},
	}}
}

func overIPv6(a attempt) attempt {
	a.v6 = true
	return a
}

// judge says in the story's terms what an answer is; "" when it is none of them.
func judge(a answer) outcome {
	switch {
	case a.exit == curlTimeout && a.status == 0:
		return dropped
	case a.exit != 0:
		return ""
	case a.status == http.StatusOK && a.body == strings.TrimSpace(landedText):
		return landed
	case a.status == http.StatusInternalServerError && strings.Contains(a.body, "exhaust port"):
		return exploded
	case a.status == http.StatusForbidden && a.body == "Access denied":
		return denied
	}
	return ""
}

// describe is an answer in words.
func describe(a answer) string {
	if what := judge(a); what != "" {
		return string(what)
	}
	if a.exit != 0 {
		return fmt.Sprintf("exit code %d of the client, status %d", a.exit, a.status)
	}
	return fmt.Sprintf("status %d, %q", a.status, a.body)
}
