package policy

import (
	"fmt"
	"strings"
)

// maxName is the most characters that a DNS name can have.
const maxName = 255

// NormalName is a DNS name as it is compared: lower case, without the dot at
// its end. The root is empty. Other letters than those of ASCII have no case in the DNS
// (RFC 4343): U+212A, which Unicode takes for a large k, is none.
func NormalName(name string) string {
	name = strings.TrimSuffix(name, ".")
	for i := range len(name) {
		if isUpper(name[i]) {
			return lowered([]byte(name))
		}
	}
	return name
}

func lowered(b []byte) string {
	for i, c := range b {
		if isUpper(c) {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// ValidateDNSName checks a name that a rule wants exactly.
func ValidateDNSName(name string) error { return validateDNS(name, false) }

// ValidateDNSPattern checks a pattern of names.
func ValidateDNSPattern(pattern string) error { return validateDNS(pattern, true) }

func validateDNS(name string, stars bool) error {
	what, more := "name", ""
	if stars {
		what, more = "pattern of names", " and '*'"
	}
	if len(name) > maxName {
		return fmt.Errorf("%.40q... is no %s: it has %d characters where %d are the most", name, what, len(name), maxName)
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		good := label != ""
		for i := range len(label) {
			good = good && (isNameByte(label[i]) || stars && label[i] == '*')
		}
		if !good {
			switch {
			case !stars && strings.Contains(name, "*"):
				return fmt.Errorf("%q is no name; write it as matchPattern", name)
			case strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 }):
				return fmt.Errorf("%q is no %s as it goes over the wire; write such labels in punycode, as in xn--bcher-kva for bücher", name, what)
			case name == ".":
				return fmt.Errorf(`"." is no %s: the root is picked by matchPattern "*" alone`, what)
			}
			return fmt.Errorf("%q is no %s; write letters, digits, '-', '_'%s, joined by single dots", name, what, more)
		}
	}
	return nil
}

// isNameByte: what a name in the DNS may hold besides dots.
func isNameByte(c byte) bool { return isAlphanumeric(c) || c == '-' || c == '_' }

// DNSPattern matches names. "*" alone matches every name. Otherwise "*" stands
// for any characters within one label, also none, and "**." at the beginning
// for one label or more. Case and the dot at the end do not matter.
type DNSPattern struct {
	all  bool
	deep bool // labels come before rest
	rest string
}

// CompileDNSPattern reads a pattern.
func CompileDNSPattern(pattern string) (DNSPattern, error) {
	if err := ValidateDNSPattern(pattern); err != nil {
		return DNSPattern{}, err
	}
	text := NormalName(pattern)
	if strings.Trim(text, "*") == "" {
		return DNSPattern{all: true}, nil
	}
	stars := len(text) - len(strings.TrimLeft(text, "*"))
	if stars > 1 && text[stars] == '.' {
		return DNSPattern{deep: true, rest: text[stars+1:]}, nil
	}
	return DNSPattern{rest: text}, nil
}

// Match reports whether a name matches. One that cannot be in the DNS does not.
func (p DNSPattern) Match(name string) bool {
	name = NormalName(name)
	if name == "" { // the root
		return p.all
	}
	if !inDNS(name) {
		return false
	}
	switch {
	case p.all:
		return true
	case !p.deep:
		return glob(p.rest, name, '.')
	}
	for i := range len(name) {
		if name[i] == '.' && glob(p.rest, name[i+1:], '.') {
			return true
		}
	}
	return false
}

// inDNS reports whether a name, in normal form and not the root, can be in the DNS.
func inDNS(name string) bool {
	before := byte('.')
	for i := range len(name) {
		c := name[i]
		if c == '.' && before == '.' || c != '.' && !isNameByte(c) {
			return false
		}
		before = c
	}
	return before != '.'
}

// glob reports whether the text is what the pattern says, where "*" stands for
// any characters but the border; border 0 is none.
func glob(pattern, text string, border byte) bool {
	star, from := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && pattern[p] == text[t]:
			p++
			t++
		case star >= 0 && (border == 0 || text[from] != border):
			from++
			p, t = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
