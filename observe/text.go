package observe

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on what is kept of one event, so that what strangers send cannot fill
// memory: with every string at its limit a full default ring holds some 250 MB.
const (
	maxURL     = 1024
	maxSummary = 1200
	maxDetail  = 512
	maxShort   = 64   // method, protocol
	maxHeaders = 1024 // all names and values together
)

// Printable replaces everything a terminal might act on (control characters, the
// C1 range, direction overrides, bytes that are not UTF-8) by an escape that shows
// what was there. What can be printed stays as it is.
func Printable(s string) string {
	if isPrintable(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteString(s[i : i+n])
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += n
	}
	return b.String()
}

func isPrintable(s string) bool {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c < 0x20 || c == 0x7f {
				return false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if (r == utf8.RuneError && n <= 1) || !unicode.IsPrint(r) {
			return false
		}
		i += n
	}
	return true
}

// wire makes a string from the wire fit for protobuf, which refuses to send a whole
// message for one byte that is not UTF-8, and cuts it to a length.
func wire(s string, limit int) string {
	s = clip(s, limit)
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n <= 1 {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return clip(b.String(), limit)
}

// clip cuts a string to a length, between characters, and shows that it did.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
