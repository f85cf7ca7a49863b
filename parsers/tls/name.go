package tls

import (
	"errors"
	"strings"
)

var (
	errNames   = errors.New("the client names several servers, or none in a list of them")
	errType    = errors.New("the client names a server otherwise than by a name of the DNS")
	errName    = errors.New("the server name is none of the DNS")
	errDot     = errors.New("the server name ends with a dot")
	errAddress = errors.New("the server name is an address")
)

const (
	hostName = 0 // the only type of a name that there is
	maxName  = 255
	maxLabel = 63
)

// readName reads the extension: a list of one name.
func readName(value []byte) (string, error) {
	c := cursor{rest: value}
	list := cursor{rest: c.vector(2)}
	switch {
	case c.bad || len(c.rest) != 0:
		return "", errLength
	case len(list.rest) == 0:
		return "", errNames
	}
	kind := list.number(1)
	name := list.vector(2)
	switch {
	case list.bad:
		return "", errLength
	case len(list.rest) != 0:
		return "", errNames
	case kind != hostName:
		return "", errType
	}
	return checkName(name)
}

// checkName wants letters, digits, '-' and '_' in labels with dots between, of which the
// last is no number: such a name is read as an address by some.
func checkName(name []byte) (string, error) {
	if len(name) == 0 || len(name) > maxName {
		return "", errName
	}
	label, digits := 0, true
	for i, b := range name {
		switch {
		case b == '.':
			if label == 0 {
				return "", errName
			}
			if i == len(name)-1 {
				return "", errDot
			}
			label, digits = 0, true
			continue
		case b == ':' || b == '[': // of IPv6
			return "", errAddress
		case !isNameByte(b):
			return "", errName
		}
		digits = digits && b >= '0' && b <= '9'
		if label++; label > maxLabel {
			return "", errName
		}
	}
	lower := strings.ToLower(string(name))
	last := lower[strings.LastIndexByte(lower, '.')+1:]
	if digits || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		return "", errAddress
	}
	return lower, nil
}

func isNameByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_'
}
