package http

import (
	"bytes"
	"errors"
	"testing"
)

// TestNormalPath has what Envoy 1.40 answers with normalize_path, merge_slashes
// and escaped slashes rejected.
func TestNormalPath(t *testing.T) {
	for in, want := range map[string]string{
		"/":                        "/",
		"/a/%41%7e%2d%5f%2e":       "/a/A~-_.",
		"/a/..;/b":                 "/b",
		"/a/..;x=1/b":              "/b",
		"/a/.;/b":                  "/a/b",
		"/a/.;x/b":                 "/a/b",
		"/a/..%3B/b":               "/a/..%3B/b",
		"/a/..%3b/b":               "/a/..%3b/b",
		"/a/..;":                   "/",
		"/a/...;/b":                "/a/...;/b",
		"/a/../b":                  "/b",
		"/a/..":                    "/",
		"/a/.":                     "/a/",
		"/../../x":                 "/x",
		"/a//b///c":                "/a/b/c",
		"/a//../b":                 "/a/b",
		"//a/b":                    "/a/b",
		"/a/%2e%2e/b":              "/b",
		"/a/%2E./b":                "/b",
		`/a\..\b`:                  "/b",
		`/a\\b`:                    "/a/b",
		"/a%252fb":                 "/a%252fb",
		"/a%01%0d%0a%7f%80%ff":     "/a%01%0d%0a%7f%80%ff",
		"/a<>^`{|}\"~x":            "/a%3C%3E%5E%60%7B%7C%7D%22~x",
		"/a[]!$&'()*+,;=:@":        "/a[]!$&'()*+,;=:@",
		"/%%341":                   "/%2541",
		"/%4%31":                   "/%2541",
		"/%zz%4":                   "/%zz%4",
		"/%":                       "/%",
		"/a%c3%a9":                 "/a%c3%a9",
		"/a%3f%23%3b%3F":           "/a%3f%23%3b%3F",
		"/a%2e/b":                  "/a./b",
		"/a..b/.c/..d/e./f..":      "/a..b/.c/..d/e./f..",
		"/a%20b":                   "/a%20b",
		"/..a":                     "/..a",
		"/.":                       "/",
		"/..":                      "/",
		"/;..":                     "/;..",
		"/a/;/../b":                "/a/b",
		"/a/..;/..;/b":             "/b",
		`/a/..;\b`:                 "/",
		"/a/x/..;":                 "/a/",
		"/a/..;..;/b":              "/b",
		"/a/%2e%2e%3bx/b":          "/a/..%3bx/b",
		"/a%/../b":                 "/b",
		"/a//":                     "/a/",
		"/x/%2e.//y":               "/y",
		"/a/b//../..//c":           "/a/c",
		"//":                       "/", // Envoy: //
		"/a/b/c/../../../../../..": "/",
		"/%%3%34":                  "/%%2534",
		"/%u00/%uniq/%%75002e":     "/%u00/%uniq/%25u002e",
	} {
		got, err := NormalPath([]byte("kept"), []byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
		again, err := NormalPath(nil, []byte(want))
		if err != nil || string(again) != want {
			t.Errorf("%q is not stable: %q, %v", want, again, err)
		}
	}
	for in, want := range map[string]error{
		"":                ErrTarget,
		"a":               ErrTarget,
		"/a?b":            ErrTarget,
		"/a#b":            ErrTarget,
		"/a b":            ErrTarget,
		"/\xc3":           ErrTarget,
		"/..;\x01":        ErrTarget,
		"/a%2fb":          ErrEscapedSlash,
		"/a%5Cb":          ErrEscapedSlash,
		"/a%00":           ErrEscapedSlash,
		"/..;%00/a":       ErrEscapedSlash, // Envoy: /a
		"/a/.%2e;/b":      ErrEscapedDots,  // Envoy: /a/..;/b
		"/a/%2e%2e;x/b":   ErrEscapedDots,
		"/a/%2e;x/b":      ErrEscapedDots,
		"/a/b/..;/%2e;/b": ErrEscapedDots,
		"/%u002e%u002e/b": ErrWideEscape, // Envoy: as it is
		"/a%U002Fb":       ErrWideEscape,
	} {
		if got, err := NormalPath(nil, []byte(in)); !errors.Is(err, want) {
			t.Errorf("%q: %q, %v; want %v", in, got, err, want)
		}
	}
}

func FuzzNormalPath(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2E//..;x/%41%%34%31", `/a\..\b`, "/%2f", "/..;/.;", "/\"<%zz"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		form, err := NormalPath(nil, in)
		if err != nil {
			return
		}
		again, err := NormalPath(make([]byte, 3), form)
		if err != nil || !bytes.Equal(form, again) {
			t.Fatalf("%q becomes %q becomes %q, %v", in, form, again, err)
		}
		if plainPath(in) && all(in, inTarget) && !bytes.Equal(form, in) {
			t.Fatalf("%q is taken for plain, but becomes %q", in, form)
		}
		segments := bytes.Split(form[1:], []byte("/"))
		for i, s := range segments {
			if string(s) == "." || string(s) == ".." || bytes.HasPrefix(s, []byte("..;")) || bytes.HasPrefix(s, []byte(".;")) {
				t.Fatalf("%q becomes %q, with a dot segment", in, form)
			}
			if len(s) == 0 && i < len(segments)-1 {
				t.Fatalf("%q becomes %q, with an empty segment", in, form)
			}
		}
		for i, c := range form {
			v := escaped(form[i:])
			if !is(c, inTarget) || bytes.IndexByte([]byte("?\\\"<>^`{|}"), c) >= 0 || v >= 0 && (is(byte(v), inEscape) || v == '/' || v == '\\' || v == 0) {
				t.Fatalf("%q becomes %q, wrong at %d", in, form, i)
			}
		}
	})
}
