package policy

import (
	"strings"
	"testing"
)

func judgeOf(t testing.TB, rules ...HTTPRule) *L7Judge {
	t.Helper()
	j, err := CompileL7(&L7Set{Protocol: ProtocolHTTP, HTTP: rules})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func httpRequest(method, path, host string, headers ...string) *HTTPRequest {
	r := &HTTPRequest{Method: []byte(method), Path: []byte(path), Host: []byte(host)}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, HTTPHeader{[]byte(headers[i]), []byte(headers[i+1])})
	}
	return r
}

func TestDecide(t *testing.T) {
	ref := Ref{"default/rule1", "ingress[0].toPorts[0].http[0]"}
	for _, tt := range []struct {
		name    string
		rule    HTTPRule
		request *HTTPRequest
		allowed bool
	}{
		{"empty rule", HTTPRule{}, httpRequest("GET", "/", ""), true},
		{"method", HTTPRule{Method: "POST"}, httpRequest("POST", "/", ""), true},
		{"other method", HTTPRule{Method: "POST"}, httpRequest("PUT", "/", ""), false},
		{"method is case-sensitive", HTTPRule{Method: "POST"}, httpRequest("post", "/", ""), false},
		{"alternatives are anchored as a group", HTTPRule{Method: "GET|HEAD"}, httpRequest("GETX", "/", ""), false},
		{"second alternative", HTTPRule{Method: "GET|HEAD"}, httpRequest("HEAD", "/", ""), true},
		{"end of an alternative", HTTPRule{Method: "GET|HEAD"}, httpRequest("XHEAD", "/", ""), false},
		{"path", HTTPRule{Path: "/public"}, httpRequest("GET", "/public", ""), true},
		{"path with query", HTTPRule{Path: "/public"}, httpRequest("GET", "/public?x=1", ""), false},
		{"longer path", HTTPRule{Path: "/public"}, httpRequest("GET", "/public/x", ""), false},
		{"prefix of the path", HTTPRule{Path: "/public"}, httpRequest("GET", "/x/public", ""), false},
		{"anchor of its own", HTTPRule{Path: "/path1$"}, httpRequest("GET", "/path1", ""), true},
		{"new line at the end", HTTPRule{Path: "/path1$"}, httpRequest("GET", "/path1\n", ""), false},
		{"multi-line flag", HTTPRule{Path: "(?m)/path1$"}, httpRequest("GET", "/path1\n/x", ""), false},
		{"regex path", HTTPRule{Path: "/v[0-9]+/.*"}, httpRequest("GET", "/v12/x", ""), true},
		{"empty expression of its own", HTTPRule{Path: "()"}, httpRequest("GET", "/", ""), false},
		{"host", HTTPRule{Host: "a.example.com"}, httpRequest("GET", "/", "a.example.com"), true},
		{"host with port", HTTPRule{Host: "a.example.com"}, httpRequest("GET", "/", "a.example.com:80"), false},
		{"header", HTTPRule{Headers: []HeaderRule{{"X-Token", "abc"}}}, httpRequest("GET", "/", "", "x-token", "abc"), true},
		{"header of other value", HTTPRule{Headers: []HeaderRule{{"X-Token", "abc"}}}, httpRequest("GET", "/", "", "x-token", "abcd"), false},
		{"header missing", HTTPRule{Headers: []HeaderRule{{"X-Token", "abc"}}}, httpRequest("GET", "/", "", "x-tokens", "abc"), false},
		{"header must be there", HTTPRule{Headers: []HeaderRule{{"X-Token", ""}}}, httpRequest("GET", "/", "", "X-TOKEN", ""), true},
		{"header must be there and is not", HTTPRule{Headers: []HeaderRule{{"X-Token", ""}}}, httpRequest("GET", "/", ""), false},
		{"second value behind a good one", HTTPRule{Headers: []HeaderRule{{"X", "a"}}}, httpRequest("GET", "/", "", "x", "a", "x", "evil"), false},
		{"second value before a good one", HTTPRule{Headers: []HeaderRule{{"X", "a"}}}, httpRequest("GET", "/", "", "x", "evil", "X", "a"), false},
		{"values are one list", HTTPRule{Headers: []HeaderRule{{"X", "a,b"}}}, httpRequest("GET", "/", "", "x", "a", "X", "b"), true},
		{"list cut short", HTTPRule{Headers: []HeaderRule{{"X", "a,b"}}}, httpRequest("GET", "/", "", "x", "a"), false},
		{"values run together", HTTPRule{Headers: []HeaderRule{{"X", "ab"}}}, httpRequest("GET", "/", "", "x", "a", "x", "b"), false},
		{"all headers", HTTPRule{Headers: []HeaderRule{{"X", "a"}, {"Y", ""}}}, httpRequest("GET", "/", "", "x", "a"), false},
		{"host as a header", HTTPRule{Headers: []HeaderRule{{"Host", "a"}}}, httpRequest("GET", "/", "a"), true},
		{"no host", HTTPRule{Headers: []HeaderRule{{"Host", ""}}}, httpRequest("GET", "/", ""), false},
	} {
		tt.rule.Ref = ref
		d := judgeOf(t, tt.rule).Decide(tt.request)
		if (d.Verdict == Allow) != tt.allowed {
			t.Errorf("%s: %+v", tt.name, d)
		}
		if d.Verdict == Allow && d.Rule != ref || d.Verdict != Allow && (d.Nearest != ref || d.Reason == "") {
			t.Errorf("%s: %+v does not name the rule", tt.name, d)
		}
	}
}

func TestNearest(t *testing.T) {
	j := judgeOf(t,
		HTTPRule{Method: "GET", Path: "/v1", Ref: Ref{"p", "0"}},
		HTTPRule{Method: "POST", Path: "/v1/request-landing", Ref: Ref{"p", "1"}},
		HTTPRule{Method: "PUT", Path: "/v1/exhaust-port$", Headers: []HeaderRule{{"X-Has-Force", "True"}}, Ref: Ref{"p", "2"}},
	)
	for _, tt := range []struct {
		request         *HTTPRequest
		nearest, reason string
	}{
		{httpRequest("PUT", "/v1/request-landing", ""), "1", "method PUT is not POST"},
		{httpRequest("GET", "/v2", ""), "0", "path /v2 is not /v1"},
		{httpRequest("PUT", "/v1/exhaust-port", ""), "2", "header X-Has-Force is missing"},
		{httpRequest("PUT", "/v1/exhaust-port", "", "X-Has-Force", "s3cret"), "2", "header X-Has-Force has another value"},
		{httpRequest("PUT", "/x", "", "X-Has-Force", "True"), "2", "path /x does not match /v1/exhaust-port$"},
		{httpRequest("PUT\x1b[2J", "/v1/request-landing", ""), "1", `method "PUT\x1b[2J" is not POST`},
	} {
		d := j.Decide(tt.request)
		if d.Nearest.Path != tt.nearest || d.Reason != tt.reason || d.Verdict != Deny {
			t.Errorf("%s %s: %+v, want %s: %s", tt.request.Method, tt.request.Path, d, tt.nearest, tt.reason)
		}
	}
	if d := j.Decide(httpRequest("PUT", "/"+strings.Repeat("a", 5000), "")); len(d.Reason) > 300 {
		t.Errorf("reason of %d bytes", len(d.Reason))
	}
}

type strange struct{}

func (strange) Protocol() Protocol { return ProtocolKafka }

func TestUnknownRequestIsDenied(t *testing.T) {
	if d := judgeOf(t, HTTPRule{}).Decide(strange{}); d.Verdict != Deny || d.Reason == "" {
		t.Errorf("%+v", d)
	}
	if d := judgeOf(t).Decide(httpRequest("GET", "/", "")); d.Verdict != Deny || d.Reason == "" {
		t.Errorf("a set without rules: %+v", d)
	}
	if _, err := CompileL7(&L7Set{Protocol: ProtocolKafka}); err == nil {
		t.Error("a set of unknown protocol compiles")
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, expr := range []string{"(", "a)|(b", "a{1000}{1000}", `(?<!x)a`, `\1`, strings.Repeat("a", maxPattern+1), "(((a{100}){100}){100})", "(?:" + strings.Repeat("a.", 20) + "){999}"} {
		if _, err := CompileL7(&L7Set{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Path: expr}}}); err == nil {
			t.Errorf("%.60q compiles", expr)
		}
	}
}

func starWars(t testing.TB) (*L7Judge, *HTTPRequest) {
	return judgeOf(t,
			HTTPRule{Method: "GET", Path: "/v1/"},
			HTTPRule{Method: "POST", Path: "/v1/request-landing$", Host: "death.*", Headers: []HeaderRule{{"X-Token", "abc"}}}),
		httpRequest("POST", "/v1/request-landing", "deathstar", "Accept", "*/*", "X-Token", "abc")
}

func TestDecideDoesNotAllocate(t *testing.T) {
	j, r := starWars(t)
	if n := testing.AllocsPerRun(1000, func() { j.Decide(r) }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
