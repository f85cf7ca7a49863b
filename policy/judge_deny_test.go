package policy

import "testing"

// TestDeniesHoldForTheSame: a deny holds for whatever a server takes for what it
// names; an allow of the same words does not.
func TestDeniesHoldForTheSame(t *testing.T) {
	rules := []HTTPRule{
		{Host: "evil\\.example"}, {Host: "UPPER\\.example"}, {Path: "/admin(/.*)?"}, {Headers: []HeaderRule{{"X-Role", "admin"}}},
		{Method: "DELETE"}, {Headers: []HeaderRule{{"X-Debug", ""}}}, {Path: "/both", Host: "both"},
	}
	deny := compileHTTP(t, L7Set{HTTP: []HTTPRule{{}, {Method: "CONNECT"}}, Deny: &L7Rules{Protocol: ProtocolHTTP, HTTP: rules}, DenyResponse: &DenyResponse{Status: 404}})
	allow := compileHTTP(t, L7Set{HTTP: rules})
	for _, tt := range []struct {
		request       *HTTPRequest
		denied, exact bool
	}{
		{httpRequest("GET", "/", "good.example"), false, false},
		{httpRequest("GET", "/", "evil.example"), true, true},
		{httpRequest("GET", "/", "EVIL.example"), true, false},
		{httpRequest("GET", "/", "evil.example."), true, false},
		{httpRequest("GET", "/", "evil.example:80"), true, false},
		{httpRequest("GET", "/", "Evil.Example.:8080"), true, false},
		{httpRequest("GET", "/", "notevil.example"), false, false},
		{httpRequest("GET", "/", "upper.example"), true, false},
		{httpRequest("GET", "/", "[::1]:80"), false, false},
		{httpRequest("GET", "/admin", "h"), true, true},
		{httpRequest("GET", "/admin;a=b", "h"), true, false},
		{httpRequest("GET", "/admin;a/x;b=/y", "h"), true, false},
		{httpRequest("GET", "/administrator;/admin", "h"), false, false},
		{httpRequest("GET", "/?x=/admin;a", "h"), false, false},
		{httpRequest("GET", "/both;x", "BOTH:1"), true, false},
		{httpRequest("GET", "/both;x", "other"), false, false},
		{httpRequest("GET", "/", "h", "x-role", "admin"), true, true},
		{httpRequest("GET", "/", "h", "x-role", "user", "X-Role", "admin"), true, false},
		{httpRequest("GET", "/", "h", "x-role", "user, admin"), true, false},
		{httpRequest("GET", "/", "h", "X_ROLE", "admin"), true, false},
		{httpRequest("GET", "/", "h", "x-role", "administrator"), false, false},
		{httpRequest("GET", "/", "h", "x_debug", ""), true, false},
		{httpRequest("DELETE", "/", "h"), true, true},
		{httpRequest("delete", "/", "h"), false, false},
		{httpRequest("CONNECT", "", "evil.example:443"), true, false},
		{httpRequest("CONNECT", "", "good.example:443"), false, false},
	} {
		if d := deny.Decide(tt.request); (d.Verdict == Deny) != tt.denied || tt.denied != (d.Response != nil) {
			t.Errorf("%s %s %s %q: %+v", tt.request.Method, tt.request.Path, tt.request.Host, tt.request.Headers, d)
		}
		if d := allow.Decide(tt.request); (d.Verdict == Allow) != tt.exact {
			t.Errorf("allow of %s %s %s %q: %+v", tt.request.Method, tt.request.Path, tt.request.Host, tt.request.Headers, d)
		}
	}
}

// TestConnectMustBeNamed: rules about methods in general open no tunnels.
func TestConnectMustBeNamed(t *testing.T) {
	request := httpRequest("CONNECT", "", "db:5432")
	for name, tt := range map[string]struct {
		rules   []HTTPRule
		allowed bool
	}{
		"everything":       {[]HTTPRule{{}}, false},
		"any method":       {[]HTTPRule{{Method: ".*"}, {Method: "[A-Z]+"}}, false},
		"named":            {[]HTTPRule{{}, {Method: "CONNECT"}}, true},
		"named with more":  {[]HTTPRule{{Method: "GET|CONNECT"}}, true},
		"elsewhere":        {[]HTTPRule{{}, {Method: "CONNECT", Host: "db:1"}}, false},
		"there":            {[]HTTPRule{{Method: "CONNECT", Host: "db:5432"}}, true},
		"without the port": {[]HTTPRule{{Method: "CONNECT", Host: "db"}}, false},
		"none":             {nil, false},
	} {
		d := compileHTTP(t, L7Set{HTTP: tt.rules}).Decide(request)
		if (d.Verdict == Allow) != tt.allowed {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if d := compileHTTP(t, L7Set{HTTP: []HTTPRule{{}, {Method: "CONNECT"}}}).Decide(httpRequest("GET", "/", "h")); d.Verdict != Allow {
		t.Errorf("%+v", d)
	}
}

// TestSetsKnowTheirModes: what policies that audit would deny is said beside the
// decision, also of nested sets; plain decisions cost nothing.
func TestSetsKnowTheirModes(t *testing.T) {
	audit := &L7Set{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Path: "/a", Ref: Ref{"p", "http[0]"}}}}
	j := compileHTTP(t, L7Set{HTTP: []HTTPRule{{Method: "GET", Ref: Ref{"q", "http[0]"}}}, Audit: audit})
	if d := j.Decide(httpRequest("GET", "/a", "h")); d.Verdict != Allow || d.Audit != nil || d.Rule.Policy != "q" {
		t.Errorf("%+v", d)
	}
	if d := j.Decide(httpRequest("GET", "/b", "h")); d.Verdict != Allow || d.Audit == nil || d.Audit.Nearest.Policy != "p" || d.Rule.Policy != "q" {
		t.Errorf("%+v", d)
	}
	if d := j.Decide(httpRequest("PUT", "/a", "h")); d.Verdict != Deny || d.Audit != nil {
		t.Errorf("%+v", d)
	}
	r := httpRequest("GET", "/a", "h", "a", "b")
	if n := testing.AllocsPerRun(100, func() { j.Decide(r) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
