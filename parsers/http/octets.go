package http

// class is what a byte may be part of.
type class uint8

const (
	inToken  class = 1 << iota // tchar, RFC 9110 section 5.6.2
	inValue                    // field values: HT, SP, visible and 0x80–0xff
	inTarget                   // request targets: visible, but #
	inPlain                    // paths, left alone by the normal form
	inHost                     // host names and IPv4 addresses
	inEscape                   // unreserved, RFC 3986: its escape is undone
)

// classes is read only.
var classes = makeClasses()

func makeClasses() (t [256]class) {
	add := func(k class, chars string) {
		for i := range len(chars) {
			t[chars[i]] |= k
		}
	}
	const alnum = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	add(inToken, alnum+"!#$%&'*+-.^_`|~")
	add(inPlain, alnum+"-._~!$&'()*+,;=:@/[]")
	add(inHost, alnum+"-._")
	add(inEscape, alnum+"-._~")
	for c := range 256 {
		if c >= 0x20 && c != 0x7f || c == '\t' {
			t[c] |= inValue
		}
		if c > 0x20 && c < 0x7f && c != '#' {
			t[c] |= inTarget
		}
	}
	return t
}

func is(c byte, k class) bool { return classes[c]&k != 0 }

// all reports whether every byte of b is of class k.
func all(b []byte, k class) bool {
	for _, c := range b {
		if classes[c]&k == 0 {
			return false
		}
	}
	return true
}

// hex is the value of a hexadecimal digit, or -1.
func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// equalFold compares b with a lower-case ASCII string, without case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	return trimRight(b)
}

func trimRight(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
