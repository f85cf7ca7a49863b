package dns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	oracle "github.com/miekg/dns"
)

// FuzzQuestion: what is read as a question is one for miekg/dns too, with the same name,
// type and size.
func FuzzQuestion(f *testing.F) {
	q := question("www.example.org.", oracle.TypeA)
	f.Add(pack(f, q))
	q.SetEdns0(4096, true)
	f.Add(pack(f, q))
	f.Add(raw(0, [4]uint16{1, 0, 0, 0}, "\x01a\xc0\x0c\x00\x01\x00\x01"))
	f.Add(raw(0, [4]uint16{2, 0, 0, 0}, "\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x1c\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		if m.ParseQuery(b) != nil {
			return
		}
		var o oracle.Msg
		if err := o.Unpack(b); err != nil {
			if m.opt == 0 && len(b) == m.question { // what options are in an OPT or a signature is not ours to say
				t.Fatalf("read as a question, and miekg/dns says: %v", err)
			}
			return
		}
		if len(o.Question) != 1 || o.Response || o.Opcode != oracle.OpcodeQuery {
			t.Fatalf("read as a question: %v", &o)
		}
		if name := o.Question[0].Name; !strings.ContainsRune(name, '\\') && strings.ToLower(strings.TrimSuffix(name, ".")) != string(m.AppendName(nil)) {
			t.Fatalf("name %q, and miekg/dns says %q", m.AppendName(nil), name)
		}
		if o.Question[0].Qtype != m.Type || o.Id != m.ID {
			t.Fatalf("%+v, and miekg/dns says %v", m, &o)
		}
		if opt := o.IsEdns0(); (opt != nil) != (m.opt != 0) || opt != nil && opt.UDPSize() != m.UDPSize {
			t.Fatalf("size %d, and miekg/dns says %v", m.UDPSize, opt)
		}
		if denial := AppendDenial(nil, &m, Refused); new(oracle.Msg).Unpack(denial) != nil {
			t.Fatalf("the denial cannot be read: %x", denial)
		}
	})
}

// FuzzAnswer: what is found is in the answer for miekg/dns too, of a name that the aliases
// of the one that was asked lead to.
func FuzzAnswer(f *testing.F) {
	for _, compress := range []bool{false, true} {
		a := answer(f, "a.example.", 1, "a.example. 60 CNAME b.example.", "b.example. 60 CNAME c.example.", "c.example. 5 A 192.0.2.1", "x.example. 5 A 192.0.2.9")
		a.Compress = compress
		f.Add(pack(f, a))
	}
	f.Add(raw(0x8000, [4]uint16{1, 1, 0, 0}, "\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x02\xc0\x0c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		var got Found
		if m.ParseAnswer(b) != nil || m.Find(&got) != nil {
			return
		}
		var o oracle.Msg
		if o.Unpack(b) != nil {
			return // it reads also what does not concern us
		}
		for _, r := range got.Records {
			if !slices.Contains(addresses(&o), r.Addr) {
				t.Fatalf("found %s, and miekg/dns says %v", r.Addr, &o)
			}
		}
	})
}

// addresses that the answer gives for the name that was asked, by another way.
func addresses(o *oracle.Msg) []netip.Addr {
	names := map[string]bool{strings.ToLower(o.Question[0].Name): true}
	for range o.Answer {
		for _, rr := range o.Answer {
			if c, ok := rr.(*oracle.CNAME); ok && names[strings.ToLower(c.Hdr.Name)] {
				names[strings.ToLower(c.Target)] = true
			}
		}
	}
	var all []netip.Addr
	for _, rr := range o.Answer {
		var ip []byte
		switch r := rr.(type) {
		case *oracle.A:
			ip = r.A
		case *oracle.AAAA:
			ip = r.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok && names[strings.ToLower(rr.Header().Name)] {
			all = append(all, a.Unmap())
		}
	}
	return all
}
