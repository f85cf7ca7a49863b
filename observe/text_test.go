package observe

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"plain é ☃ text":        "plain é ☃ text",
		"\x1b[31mred\x1b[0m":    `\x1b[31mred\x1b[0m`,
		"line\r\nother\ttab":    `line\x0d\x0aother\x09tab`,
		"\u009b31m":             `\u009b31m`,
		"a\u202eb":              `a\u202eb`,
		"\xff\xc3":              `\xff\xc3`,
		"del\x7f":               `del\x7f`,
		"\U000e0001":            `\U000e0001`,
		"back\\slash \"quote\"": "back\\slash \"quote\"",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\xff\u202e", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if got := Printable(s); !utf8.ValidString(got) || !isPrintable(got) {
			t.Errorf("Printable(%q) = %q", s, got)
		}
		limit &= 0xfff
		if got := wire(s, limit); !utf8.ValidString(got) || len(got) > limit+2*len("…") {
			t.Errorf("wire(%q, %d) = %q", s, limit, got)
		}
	})
}

func TestWireKeepsWholeCharacters(t *testing.T) {
	if got := wire(strings.Repeat("é", 10), 5); got != "éé…" {
		t.Errorf("got %q", got)
	}
}
