package dns

import "errors"

const (
	maxName  = 255 // bytes of a name on the wire, with lengths and the root
	maxLabel = 63
)

var (
	errShort   = errors.New("the message ends within what it announces")
	errLabel   = errors.New("a label of a type that is not in use")
	errName    = errors.New("a name is longer than 255 bytes")
	errPointer = errors.New("a name leads to what does not stand before it")
)

// skipName returns where a name that begins at i ends, without following pointers.
func skipName(m []byte, i int) (int, error) {
	for length := 0; ; {
		if i >= len(m) {
			return 0, errShort
		}
		c := int(m[i])
		switch {
		case c == 0:
			return i + 1, nil
		case c >= 0xc0:
			if i+2 > len(m) {
				return 0, errShort
			}
			return i + 2, nil
		case c > maxLabel:
			return 0, errLabel
		}
		i += 1 + c
		if length += 1 + c; length >= maxName {
			return 0, errName
		}
	}
}

// walker goes along the labels of a name, and follows pointers, each of which must lead
// further back than the name's last part began.
type walker struct {
	m      []byte
	i      int
	before int // pointers must lead before here
	length int
	end    int // behind the name where it stands; 0: not yet known
}

func walk(m []byte, i int) walker { return walker{m: m, i: i, before: i} }

// next returns a label; none: the name is at its end.
func (w *walker) next() ([]byte, error) {
	for {
		if w.i >= len(w.m) {
			return nil, errShort
		}
		c := int(w.m[w.i])
		switch {
		case c == 0:
			if w.end == 0 {
				w.end = w.i + 1
			}
			return nil, nil
		case c >= 0xc0:
			if w.i+2 > len(w.m) {
				return nil, errShort
			}
			to := c&0x3f<<8 | int(w.m[w.i+1])
			if to >= w.before || to < headerSize {
				return nil, errPointer
			}
			if w.end == 0 {
				w.end = w.i + 2
			}
			w.i, w.before = to, to
			continue
		case c > maxLabel:
			return nil, errLabel
		}
		if w.i+1+c > len(w.m) {
			return nil, errShort
		}
		if w.length += 1 + c; w.length >= maxName {
			return nil, errName
		}
		label := w.m[w.i+1 : w.i+1+c]
		w.i += 1 + c
		return label, nil
	}
}

// checkName follows a name to its root and returns where it ends.
func checkName(m []byte, i int) (int, error) {
	w := walk(m, i)
	for {
		label, err := w.next()
		if err != nil {
			return 0, err
		}
		if label == nil {
			return w.end, nil
		}
	}
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// sameName compares the names at two places of messages that were checked.
func sameName(a []byte, i int, b []byte, j int) bool {
	x, y := walk(a, i), walk(b, j)
	for {
		l, err := x.next()
		r, err2 := y.next()
		if err != nil || err2 != nil || len(l) != len(r) {
			return false
		}
		if l == nil {
			return true
		}
		for k := range l {
			if lower(l[k]) != lower(r[k]) {
				return false
			}
		}
	}
}

// appendName appends the name at i as people write it, in lower case and without the
// dot at its end: the root is empty. Bytes of a label that would mean something else in
// that form, or are not printable, are escaped (RFC 4343, 2.1).
func appendName(b, m []byte, i int) ([]byte, error) {
	w := walk(m, i)
	for first := true; ; first = false {
		label, err := w.next()
		if err != nil {
			return b, err
		}
		if label == nil {
			return b, nil
		}
		if !first {
			b = append(b, '.')
		}
		for _, c := range label {
			switch {
			case c == '.' || c == '\\':
				b = append(b, '\\', c)
			case c <= ' ' || c >= 0x7f:
				b = append(b, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
			default:
				b = append(b, lower(c))
			}
		}
	}
}
