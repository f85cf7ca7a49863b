package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// seal drops rules that are there twice and gives the set its id: a hash of its
// protocol and rules in an order of their own, so that the order in which
// policies come does not matter.
func (s *L7Set) seal() {
	seen := map[string]struct{}{}
	var kept []HTTPRule
	var encoded []string
	for _, rule := range s.HTTP {
		e := string(rule.append(nil))
		if _, ok := seen[e]; ok {
			continue
		}
		seen[e] = struct{}{}
		kept = append(kept, rule)
		encoded = append(encoded, e)
	}
	s.HTTP = kept
	slices.Sort(encoded)

	sum := sha256.New()
	sum.Write([]byte{byte(s.Protocol)})
	for _, e := range encoded {
		sum.Write(appendString(nil, e))
	}
	copy(s.ID[:], sum.Sum(nil))
}

// append writes the rule such that different rules give different bytes.
func (h *HTTPRule) append(b []byte) []byte {
	for _, s := range []string{h.Method, h.Path, h.Host, h.Ref.Policy, h.Ref.Path} {
		b = appendString(b, s)
	}
	for _, header := range h.Headers {
		b = appendString(appendString(b, header.Name), header.Value)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
