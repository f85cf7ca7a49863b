package policy

import (
	"fmt"
	"strings"
	"testing"
)

// headersOf writes a decision's headers, or "-" if the request keeps its own.
func headersOf(d Decision) string {
	if !d.Edited {
		return "-"
	}
	var list []string
	for _, h := range d.Headers {
		list = append(list, string(h.Name)+"="+string(h.Value))
	}
	return strings.Join(list, " ")
}

func compileHTTP(t *testing.T, set L7Set) Judge {
	t.Helper()
	set.Protocol = ProtocolHTTP
	j, err := CompileSet(&set)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestHeaderEdits(t *testing.T) {
	edit := func(action HeaderAction, name, value string) HeaderEdit {
		return HeaderEdit{HeaderRule: HeaderRule{name, value}, Action: action}
	}
	for name, tt := range map[string]struct {
		edits         []HeaderEdit
		request       []string
		want, details string
	}{
		"as it should be":           {[]HeaderEdit{edit(HeaderReplace, "X", "a")}, []string{"x", "a"}, "-", ""},
		"log":                       {[]HeaderEdit{edit(HeaderLog, "X", "a")}, []string{"x", "b"}, "-", "header X has another value"},
		"log, missing":              {[]HeaderEdit{edit(HeaderLog, "X", "a")}, nil, "-", "header X is missing"},
		"log, to be there":          {[]HeaderEdit{edit(HeaderLog, "X", "")}, []string{"x", "b"}, "-", ""},
		"add":                       {[]HeaderEdit{edit(HeaderAdd, "X", "a")}, []string{"x", "b", "y", "c"}, "x=b y=c X=a", "header X has another value: added"},
		"add, missing":              {[]HeaderEdit{edit(HeaderAdd, "X", "a")}, nil, "X=a", "header X is missing: added"},
		"replace":                   {[]HeaderEdit{edit(HeaderReplace, "X", "a")}, []string{"x", "b", "y", "c", "X", "d"}, "y=c X=a", "header X has another value: replaced"},
		"replace a list":            {[]HeaderEdit{edit(HeaderReplace, "X", "a")}, []string{"x", "a", "X", "a"}, "X=a", "header X has another value: replaced"},
		"replace a double":          {[]HeaderEdit{edit(HeaderReplace, "X-A", "a")}, []string{"x-a", "a", "X_A", "evil"}, "X-A=a", "header X-A has a double: replaced"},
		"delete":                    {[]HeaderEdit{edit(HeaderDelete, "X", "a")}, []string{"x", "b", "y", "c"}, "y=c", "header X has another value: deleted"},
		"delete, missing":           {[]HeaderEdit{edit(HeaderDelete, "X", "a")}, []string{"y", "c"}, "-", "header X is missing"},
		"delete a double":           {[]HeaderEdit{edit(HeaderDelete, "X-A", "a")}, []string{"x_a", "evil"}, "", "header X-A has a double: deleted"},
		"one after the other":       {[]HeaderEdit{edit(HeaderDelete, "X", "a"), edit(HeaderAdd, "X", "b"), edit(HeaderAdd, "X", "b")}, []string{"x", "c"}, "X=b", "header X has another value: deleted, header X is missing: added"},
		"two headers, a third kept": {[]HeaderEdit{edit(HeaderReplace, "A", "1"), edit(HeaderReplace, "B", "2")}, []string{"c", "3"}, "c=3 A=1 B=2", "header A is missing: replaced, header B is missing: replaced"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httpRequest("GET", "/", "h", tt.request...)
			before := fmt.Sprintf("%q", r.Headers)
			d := compileHTTP(t, L7Set{HTTP: []HTTPRule{{Edits: tt.edits}}}).Decide(r)
			if d.Verdict != Allow || headersOf(d) != tt.want || d.Reason != tt.details {
				t.Errorf("got %v %q %q", d.Verdict, headersOf(d), d.Reason)
			}
			if after := fmt.Sprintf("%q", r.Headers); after != before {
				t.Errorf("the request itself was changed: %s", after)
			}
		})
	}
}

// Every rule that matches edits, and no other does.
func TestEditsOfSeveralRules(t *testing.T) {
	put := func(name string) []HeaderEdit {
		return []HeaderEdit{{HeaderRule: HeaderRule{name, "v"}, Action: HeaderReplace}}
	}
	j := compileHTTP(t, L7Set{HTTP: []HTTPRule{{Path: "/a"}, {Path: "/a", Edits: put("A")}, {Path: "/b", Edits: put("B")}, {Edits: put("C"), Headers: []HeaderRule{{"K", ""}}}}})
	for path, want := range map[string]string{"/a": "A=v", "/b": "B=v", "/c": "-"} {
		if d := j.Decide(httpRequest("GET", path, "h")); headersOf(d) != want {
			t.Errorf("%s: %q", path, headersOf(d))
		}
	}
	if d := j.Decide(httpRequest("GET", "/a", "h", "k", "x")); headersOf(d) != "k=x A=v C=v" {
		t.Errorf("got %q", headersOf(d))
	}
}

func TestEditsThatAreRefused(t *testing.T) {
	for _, name := range []string{"Host", "content-length", "Content_Length", "Transfer-Encoding", "Connection", "Upgrade", ":path", "", "TE", "Expect"} {
		set := &L7Set{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Edits: []HeaderEdit{{HeaderRule: HeaderRule{name, "a"}, Action: HeaderDelete}}}}}
		if _, err := CompileSet(set); err == nil {
			t.Errorf("header %q may be changed", name)
		}
	}
	for _, value := range []string{"a\r\nX: b", " a", "a\x00"} {
		set := &L7Set{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Edits: []HeaderEdit{{HeaderRule: HeaderRule{"X", value}, Action: HeaderAdd}}}}}
		if _, err := CompileSet(set); err == nil {
			t.Errorf("a header may be given the value %q", value)
		}
	}
}

func TestReveal(t *testing.T) {
	known, unknown := SecretRef{Namespace: "a", Name: "known"}, SecretRef{Namespace: "a", Name: "unknown"}
	values := map[SecretRef]string{known: "s3", {Namespace: "a", Name: "bad"}: "x\ny", {Namespace: "b", Name: "other"}: "o"}
	set := &L7Set{
		Protocol: ProtocolHTTP,
		HTTP: []HTTPRule{
			{Path: "/asked", Secrets: []SecretHeader{{Name: "K", Secret: known}}},
			{Path: "/unknown", Secrets: []SecretHeader{{Name: "K", Secret: unknown}}},
			{Path: "/instead", Secrets: []SecretHeader{{Name: "K", Secret: unknown, Value: "plain"}}},
			{Path: "/bad", Secrets: []SecretHeader{{Name: "K", Secret: SecretRef{Namespace: "a", Name: "bad"}}}},
			{Path: "/put", Edits: []HeaderEdit{{HeaderRule: HeaderRule{"K", "plain"}, Action: HeaderReplace, Secret: &known}}},
			{Path: "/put-instead", Edits: []HeaderEdit{{HeaderRule: HeaderRule{"K", "plain"}, Action: HeaderReplace, Secret: &unknown}}},
			{Path: "/put-unknown", Edits: []HeaderEdit{{HeaderRule: HeaderRule{"K", ""}, Action: HeaderReplace, Secret: &unknown}}},
		},
		Deny:  &L7Rules{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Path: "/denied", Secrets: []SecretHeader{{Name: "K", Secret: known}}}}},
		Audit: &L7Set{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Secrets: []SecretHeader{{Name: "K", Secret: known}}}}},
	}
	before := fmt.Sprintf("%+v", set.HTTP)
	used := set.Secrets(values)
	if len(used) != 2 || used[known] != "s3" {
		t.Errorf("used are %v", used)
	}
	j, err := CompileSet(set.Reveal(used))
	if err != nil {
		t.Fatal(err)
	}
	if after := fmt.Sprintf("%+v", set.HTTP); after != before {
		t.Error("the set itself was changed:", after)
	}
	for request, want := range map[string]string{
		"/asked s3": "allow -", "/asked no": "deny -", "/unknown s3": "deny -", "/instead plain": "allow -", "/instead s3": "deny -", "/bad x": "deny -",
		"/put no": "allow K=s3", "/put-instead no": "allow K=plain", "/put-unknown no": "deny -", "/denied s3": "deny -",
	} {
		path, value, _ := strings.Cut(request, " ")
		d := j.Decide(httpRequest("GET", path, "h", "k", value))
		if got := d.Verdict.String() + " " + headersOf(d); got != want {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
		if (d.Audit != nil) != (d.Verdict == Allow && value != "s3") {
			t.Errorf("%s: audit %+v", request, d.Audit)
		}
		if strings.Contains(fmt.Sprint(d.Reason), "s3") {
			t.Errorf("%s: the reason has the secret: %s", request, d.Reason)
		}
	}
}
