package http

// NormalPath appends the normal form of a path (without query) to dst and
// returns the form alone. It is Envoy's, with normalize_path, merge_slashes and
// escaped slashes rejected:
//
//   - escapes of unreserved characters are undone; all others stay as they are,
//     broken ones too (a stray % that would thereby get two digits behind it
//     becomes %25, so that the form is stable)
//   - " < > ^ ` { | } are escaped, a backslash is a slash
//   - segments . and .. are removed, written plainly or escaped, and with
//     parameters (..;x) if written plainly; .. at the root stays there
//   - slashes in a row are merged
//   - %2F, %5C, %00, and bytes that may not stand in a target, are errors
//
// Stricter than Envoy: an escaped dot segment with parameters (%2e%2e;x), which
// Envoy turns into one that it would have removed, is an error, and so is %u002e,
// which IIS takes for a dot, and UTF-8 that is longer than need be; // alone becomes /.
//
// The form of a form is itself. Path must begin with a slash.
func NormalPath(dst, path []byte) ([]byte, error) {
	if len(path) == 0 || path[0] != '/' {
		return nil, ErrTarget
	}
	base := len(dst)
	dst, stray, err := canonical(dst, path)
	if err != nil {
		return nil, err
	}
	if stray {
		// Written behind the first, since it may grow.
		next := len(dst)
		dst = unstray(dst, dst[base:])
		base = next
	}
	return merge(dst[base:]), nil
}

// plainPath reports whether NormalPath would leave the path alone, for the many
// where that is quickly seen. The bytes were checked to be of a target.
func plainPath(path []byte) bool {
	slash := false
	for _, c := range path {
		if slash && (c == '/' || c == '.') || !is(c, inPlain) {
			return false
		}
		slash = c == '/'
	}
	return true
}

// strayMark stands for a % that begins no escape, until the form is complete.
const strayMark = 0

// canonical does all but the merging of slashes and the stray percents.
func canonical(dst, path []byte) (out []byte, stray bool, err error) {
	const digits = "0123456789ABCDEF"
	base := len(dst)
	for i := 0; i < len(path); {
		c := path[i]
		if len(dst) > base && dst[len(dst)-1] == '/' {
			dots, n, err := dotSegment(path[i:])
			if err != nil {
				return nil, false, err
			}
			if dots > 0 {
				if dots == 2 {
					dst = parent(dst, base)
				}
				if err := checkEscapes(path[i : i+n]); err != nil {
					return nil, false, err
				}
				i += n
				continue
			}
		}
		switch {
		case is(c, inPlain):
			dst = append(dst, c)
		case c == '\\':
			dst = append(dst, '/')
		case !is(c, inTarget) || c == '?':
			return nil, false, ErrTarget
		case c != '%':
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		default:
			v := escaped(path[i:])
			switch {
			case isWide(path[i+1:]):
				return nil, false, ErrWideEscape
			case v < 0:
				dst, stray = append(dst, strayMark), true
			case v == '/' || v == '\\' || v == 0:
				return nil, false, ErrEscapedSlash
			case v >= 0xc0 && overlong(v, escaped(path[i+3:])):
				return nil, false, ErrOverlong
			case is(byte(v), inEscape):
				dst = append(dst, byte(v))
				i += 2
			default:
				dst = append(dst, path[i:i+3]...)
				i += 2
			}
		}
		i++
	}
	return dst, stray, nil
}

// escaped is the byte that the escape at the start of b means, or -1.
func escaped(b []byte) int {
	if len(b) < 3 || b[0] != '%' {
		return -1
	}
	hi, lo := hex(b[1]), hex(b[2])
	if hi < 0 || lo < 0 {
		return -1
	}
	return hi<<4 | lo
}

// overlong reports whether two bytes, of which there may be only one, begin UTF-8 that is
// longer than it had to be (RFC 3629 section 3): careless readers take C0 AE for a dot.
func overlong(first, second int) bool {
	if second < 0x80 || second > 0xbf {
		return false
	}
	switch first {
	case 0xc0, 0xc1:
		return true
	case 0xe0:
		return second < 0xa0
	case 0xf0:
		return second < 0x90
	}
	return first >= 0xf8 // more than four bytes
}

// isWide reports whether what is behind a percent makes it an escape of the kind
// %u002e, which is none, but some servers take it for one.
func isWide(b []byte) bool {
	if len(b) < 5 || b[0]|0x20 != 'u' {
		return false
	}
	for _, c := range b[1:5] {
		if hex(c) < 0 {
			return false
		}
	}
	return true
}

// dotSegment reports whether b begins with a segment of one or two dots, and how
// long it is with the slash behind it.
func dotSegment(b []byte) (dots, n int, err error) {
	plain := true
	for n < len(b) {
		if b[n] == '.' {
			n++
		} else if escaped(b[n:]) == '.' {
			n, plain = n+3, false
		} else {
			break
		}
		if dots++; dots > 2 {
			return 0, 0, nil
		}
	}
	switch {
	case dots == 0 || n == len(b):
		return dots, n, nil
	case b[n] == '/' || b[n] == '\\':
		return dots, n + 1, nil
	case b[n] != ';':
		return 0, 0, nil
	case !plain:
		return 0, 0, ErrEscapedDots
	}
	for n < len(b) {
		n++
		if b[n-1] == '/' {
			break
		}
	}
	return dots, n, nil
}

// checkEscapes finds what may not even stand in a segment that is removed.
func checkEscapes(b []byte) error {
	for i, c := range b {
		if !is(c, inTarget) || c == '?' {
			return ErrTarget
		}
		if c == '%' {
			switch v := escaped(b[i:]); {
			case v == '/' || v == '\\' || v == 0:
				return ErrEscapedSlash
			case v >= 0xc0 && overlong(v, escaped(b[i+3:])):
				return ErrOverlong
			}
		}
	}
	return nil
}

// parent removes the last segment of a path that ends in a slash.
func parent(dst []byte, base int) []byte {
	n := len(dst) - 1
	for n > base && dst[n-1] != '/' {
		n--
	}
	if n == base {
		n++
	}
	return dst[:n]
}

// unstray appends src to dst with the marks put back to percents.
func unstray(dst, src []byte) []byte {
	for i, c := range src {
		switch {
		case c != strayMark:
			dst = append(dst, c)
		case i+2 < len(src) && hex(src[i+1]) >= 0 && hex(src[i+2]) >= 0, isWide(src[i+1:]):
			dst = append(dst, "%25"...)
		default:
			dst = append(dst, '%')
		}
	}
	return dst
}

// merge merges slashes in place.
func merge(p []byte) []byte {
	n := 0
	for _, c := range p {
		if c == '/' && n > 0 && p[n-1] == '/' {
			continue
		}
		p[n] = c
		n++
	}
	return p[:n]
}
