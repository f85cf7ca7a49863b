package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// seal drops rules that are there twice and gives the set its id: a hash of its
// protocol and rules in an order of their own, so that the order in which
// policies come does not matter.
func (s *L7Set) seal() {
	var lines [][]string
	s.HTTP, lines = unique(s.HTTP, (*HTTPRule).append, lines)
	s.GRPC, lines = unique(s.GRPC, (*GRPCRule).append, lines)
	s.Kafka, lines = unique(s.Kafka, (*KafkaRule).append, lines)
	s.DNS, lines = unique(s.DNS, (*DNSRule).append, lines)
	s.TLS, lines = unique(s.TLS, (*TLSRule).append, lines)
	plain := s.Deny == nil && s.DenyResponse == nil && s.Audit == nil && !s.Observed && s.Ends == nil // such sets have kept their ids since the first version
	for _, list := range lines[1:] {
		plain = plain && len(list) == 0
	}

	sum := sha256.New()
	protocol := byte(s.Protocol)
	if !plain {
		protocol |= 0x80
	}
	sum.Write([]byte{protocol})
	for _, list := range lines {
		if !plain {
			sum.Write(binary.AppendUvarint(nil, uint64(len(list))))
		}
		for _, e := range list {
			sum.Write(appendString(nil, e))
		}
	}
	if s.Deny != nil {
		deny := &L7Set{
			Protocol: s.Deny.Protocol, HTTP: s.Deny.HTTP, GRPC: s.Deny.GRPC, Kafka: s.Deny.Kafka, DNS: s.Deny.DNS, TLS: s.Deny.TLS,
		}
		deny.seal()
		s.Deny = &L7Rules{
			Protocol: s.Deny.Protocol, HTTP: deny.HTTP, GRPC: deny.GRPC, Kafka: deny.Kafka, DNS: deny.DNS, TLS: deny.TLS,
		}
		sum.Write(append([]byte("deny"), deny.ID[:]...))
	}
	if l := s.Listener; l != nil {
		sum.Write(appendStrings([]byte("listener"), l.Kind, l.Namespace, l.Config, l.Name))
	}
	if s.Observed {
		sum.Write([]byte("observed"))
	}
	if s.Audit != nil {
		sum.Write(append([]byte("audit"), s.Audit.ID[:]...))
	}
	if e := s.Ends; e != nil {
		sum.Write(fmt.Appendf(nil, "ends %q %q %q %v %q %q %q", e.Certificate, e.PrivateKey, e.TrustedCA, e.Conflict, e.ClientCA, e.OwnCertificate, e.OwnKey))
	}
	if r := s.DenyResponse; r != nil {
		sum.Write(appendString(binary.AppendUvarint([]byte("response"), uint64(r.Status)), r.Body))
	}
	copy(s.ID[:], sum.Sum(nil))
}

// unique leaves one of each rule, and adds what they are written as, in order.
func unique[R any](rules []R, write func(*R, []byte) []byte, lines [][]string) ([]R, [][]string) {
	seen := map[string]struct{}{}
	var kept []R
	var encoded []string
	for i := range rules {
		e := string(write(&rules[i], nil))
		if _, ok := seen[e]; ok {
			continue
		}
		seen[e] = struct{}{}
		kept = append(kept, rules[i])
		encoded = append(encoded, e)
	}
	slices.Sort(encoded)
	return kept, append(lines, encoded)
}

// append writes the rule such that different rules give different bytes.
func (h *HTTPRule) append(b []byte) []byte {
	more := len(h.Edits)+len(h.Secrets) > 0
	if more { // no length is written so
		b = binary.AppendUvarint(append(b, 0x80, 0), uint64(len(h.Headers)))
	}
	b = appendStrings(b, h.Method, h.Path, h.Host, h.Ref.Policy, h.Ref.Path)
	for _, header := range h.Headers {
		b = appendStrings(b, header.Name, header.Value)
	}
	if !more {
		return b
	}
	for _, e := range h.Edits {
		b = appendStrings(append(b, 1, byte(e.Action)), e.Name, e.Value)
		if e.Secret != nil {
			b = appendStrings(append(b, 2), e.Secret.Namespace, e.Secret.Name)
		}
	}
	for _, s := range h.Secrets {
		b = appendStrings(append(b, 3), s.Name, s.Secret.Namespace, s.Secret.Name, s.Value)
	}
	return b
}

func (g *GRPCRule) append(b []byte) []byte {
	return appendStrings(b, g.Service, g.Method, g.Ref.Policy, g.Ref.Path)
}

func (k *KafkaRule) append(b []byte) []byte {
	b = appendStrings(b, k.Role, k.ClientID, k.Topic, k.Group, k.TransactionalID, k.Ref.Policy, k.Ref.Path)
	if k.HasVersion {
		b = binary.AppendVarint(append(b, 1), int64(k.APIVersion))
	} else {
		b = append(b, 0)
	}
	for _, key := range k.APIKeys {
		b = binary.AppendVarint(b, int64(key))
	}
	return b
}

func (d *DNSRule) append(b []byte) []byte {
	b = appendStrings(b, d.Name, d.Pattern, d.Ref.Policy, d.Ref.Path)
	for _, typ := range d.Types { // without types, the id that there was before there were any
		b = binary.AppendUvarint(b, uint64(typ))
	}
	return b
}

func (t *TLSRule) append(b []byte) []byte {
	return appendStrings(b, t.ServerName, t.Ref.Policy, t.Ref.Path)
}

func appendStrings(b []byte, list ...string) []byte {
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
