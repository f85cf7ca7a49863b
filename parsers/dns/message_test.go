package dns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	oracle "github.com/miekg/dns"
)

func pack(t testing.TB, m *oracle.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func question(name string, qtype uint16) *oracle.Msg {
	return new(oracle.Msg).SetQuestion(name, qtype)
}

func TestQuestions(t *testing.T) {
	withOPT := question("a.Example.", oracle.TypeAAAA)
	withOPT.SetEdns0(4096, true)
	signed := question("a.", oracle.TypeA)
	signed.SetEdns0(512, false)
	signed.SetTsig("key.", oracle.HmacSHA256, 300, 1)
	signature, _, err := oracle.TsigGenerate(signed, "c2VjcmV0", "", false)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		raw  []byte
		want string
		size uint16
	}{
		"plain":           {pack(t, question("www.Example.ORG.", oracle.TypeA)), "www.example.org", 0},
		"the root":        {pack(t, question(".", oracle.TypeNS)), "", 0},
		"EDNS":            {pack(t, withOPT), "a.example", 4096},
		"signed":          {signature, "a", 512},
		"odd bytes":       {pack(t, question(`a\.b.c\000d\\.`, oracle.TypeA)), `a\.b.c\000d\\`, 0},
		"IDN":             {pack(t, question("xn--bcher-kva.example.", oracle.TypeA)), "xn--bcher-kva.example", 0},
		"the longest":     {pack(t, question(strings.Repeat(strings.Repeat("a", 63)+".", 3)+strings.Repeat("b", 61)+".", oracle.TypeA)), strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 61), 0},
		"a type not made": {pack(t, question("a.", 65400)), "a", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var m Message
			if err := m.ParseQuery(c.raw); err != nil {
				t.Fatal(err)
			}
			if got := string(m.AppendName(nil)); got != c.want || m.UDPSize != c.size {
				t.Errorf("name %q, size %d; want %q, %d", got, m.UDPSize, c.want, c.size)
			}
			for n := range c.raw { // what is cut off anywhere is no message
				if err := m.ParseQuery(c.raw[:n]); err == nil {
					t.Errorf("its first %d bytes were read", n)
				}
			}
		})
	}
}

// raw makes a message of a header and what follows.
func raw(flags uint16, counts [4]uint16, body string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, 7}, flags)
	for _, c := range counts {
		b = binary.BigEndian.AppendUint16(b, c)
	}
	return append(b, body...)
}

func TestRefusedQuestions(t *testing.T) {
	one := [4]uint16{1, 0, 0, 0}
	const asked = "\x01a\x00\x00\x01\x00\x01"
	opt := "\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"no header":             make([]byte, 11),
		"an answer":             raw(0x8000, one, asked),
		"a notification":        raw(4<<11, one, asked),
		"an update":             raw(5<<11, one, asked),
		"no question":           raw(0, [4]uint16{}, ""),
		"two questions":         raw(0, [4]uint16{2, 0, 0, 0}, asked+asked),
		"an answer's records":   raw(0, [4]uint16{1, 1, 0, 0}, asked+"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"),
		"authority":             raw(0, [4]uint16{1, 0, 1, 0}, asked+"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"),
		"another record":        raw(0, [4]uint16{1, 0, 0, 1}, asked+"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04abcd"),
		"two OPT records":       raw(0, [4]uint16{1, 0, 0, 2}, asked+opt+opt),
		"OPT with a name":       raw(0, [4]uint16{1, 0, 0, 1}, asked+"\x01a"+opt),
		"something behind":      raw(0, one, asked+"x"),
		"a pointer to itself":   raw(0, one, "\xc0\x0c\x00\x01\x00\x01"),
		"a pointer on":          raw(0, one, "\xc0\x10\x00\x01\x00\x01"),
		"a pointer to a header": raw(0, one, "\x01a\xc0\x00\x00\x01\x00\x01"),
		"a pointer in a circle": raw(0, one, "\x01a\xc0\x0c\x00\x01\x00\x01"),
		"a label of 64":         raw(0, one, "\x40"+strings.Repeat("a", 64)+"\x00\x00\x01\x00\x01"),
		"a binary label":        raw(0, one, "\x41\x00\x00\x01\x00\x01"),
		"a name of 256": raw(0, one, strings.Repeat("\x3f"+strings.Repeat("a", 63), 3)+"\x3f"+strings.Repeat("a", 63)+
			"\x00\x00\x01\x00\x01"),
		"64 kB": make([]byte, 70000),
	} {
		var m Message
		if err := m.ParseQuery(b); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func answer(t testing.TB, name string, qtype uint16, records ...string) *oracle.Msg {
	t.Helper()
	a := new(oracle.Msg).SetReply(question(name, qtype))
	for _, r := range records {
		rr, err := oracle.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Answer = append(a.Answer, rr)
	}
	return a
}

func TestFound(t *testing.T) {
	for name, c := range map[string]struct {
		typ     uint16
		records []string
		want    string
	}{
		"an address":           {1, []string{"a. 60 A 192.0.2.1"}, "192.0.2.1/60"},
		"two":                  {1, []string{"a. 60 A 192.0.2.1", "a. 30 A 192.0.2.2"}, "192.0.2.1/60 192.0.2.2/30"},
		"the same twice":       {1, []string{"a. 60 A 192.0.2.1", "a. 90 A 192.0.2.1"}, "192.0.2.1/90"},
		"IPv6":                 {28, []string{"A. 60 AAAA 2001:db8::1"}, "2001:db8::1/60"},
		"IPv4 in IPv6":         {28, []string{"a. 60 AAAA ::ffff:192.0.2.1"}, "192.0.2.1/60"},
		"of another name":      {1, []string{"b. 60 A 192.0.2.1"}, ""},
		"an alias":             {1, []string{"a. 60 CNAME b.", "b. 30 A 192.0.2.1"}, "→b 192.0.2.1/30"},
		"aliases in any order": {1, []string{"c. 5 A 192.0.2.1", "b. 60 CNAME c.", "a. 60 CNAME B."}, "→b →c 192.0.2.1/5"},
		"beside the chain":     {1, []string{"a. 60 CNAME b.", "b. 30 A 192.0.2.1", "c. 30 A 192.0.2.2", "a. 60 A 192.0.2.3"}, "→b 192.0.2.3/60 192.0.2.1/30"},
		"an alias alone":       {5, []string{"a. 60 CNAME b.", "b. 60 A 192.0.2.1"}, "→b"},
		"to itself":            {1, []string{"a. 60 CNAME a."}, "error"},
		"in a circle":          {1, []string{"a. 60 CNAME b.", "b. 60 CNAME a."}, "error"},
		"two aliases":          {1, []string{"a. 60 CNAME b.", "a. 60 CNAME c."}, "error"},
		"another class":        {1, []string{"a. 60 CH A 192.0.2.1"}, ""},
		"a negative TTL":       {1, []string{"a. 4294967295 A 192.0.2.1"}, "192.0.2.1/0"},
		"of another type":      {1, []string{"a. 60 AAAA 2001:db8::1", "a. 60 A 192.0.2.1"}, "192.0.2.1/60"},
		"beside what is asked": {16, []string{`a. 60 TXT "x"`, "a. 60 A 192.0.2.1"}, ""},
		"of every type":        {255, []string{"a. 60 A 192.0.2.1", "a. 60 AAAA 2001:db8::1", "b. 60 A 192.0.2.2"}, "192.0.2.1/60 2001:db8::1/60"},
		"hints of HTTPS":       {65, []string{"a. 60 HTTPS 1 . ipv4hint=192.0.2.1 ipv6hint=2001:db8::1", "a. 60 A 192.0.2.2"}, ""},
		"hints beside":         {1, []string{"a. 60 SVCB 1 b. ipv4hint=192.0.2.1", "b. 60 A 192.0.2.2"}, ""},
		"DNAME and its alias":  {1, []string{". 60 DNAME b.", "a. 60 CNAME a.b.", "a.b. 60 A 192.0.2.1"}, "→a.b 192.0.2.1/60"},
		"DNAME alone":          {1, []string{". 60 DNAME b.", "a.b. 60 A 192.0.2.1"}, ""},
		"a name above":         {1, []string{". 60 A 192.0.2.1", "x.a. 60 A 192.0.2.2"}, ""},
		"behind the chain":     {1, []string{"a. 60 CNAME b.", "c. 60 CNAME d.", "d. 60 A 192.0.2.1"}, "→b"},
		"nothing":              {1, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := answer(t, "A.", c.typ, c.records...)
			for _, compress := range []bool{false, true} {
				a.Compress = compress
				if got := found(t, pack(t, a)); got != c.want {
					t.Errorf("compressed %v: %s, want %s", compress, got, c.want)
				}
			}
		})
	}
}

func found(t testing.TB, b []byte) string {
	t.Helper()
	var m Message
	if err := m.ParseAnswer(b); err != nil {
		t.Fatal(err)
	}
	var f Found
	if err := m.Find(&f); err != nil {
		return "error"
	}
	var out []string
	for _, c := range f.Chain {
		out = append(out, "→"+c)
	}
	for _, r := range f.Records {
		out = append(out, fmt.Sprintf("%s/%d", r.Addr, r.TTL))
	}
	return strings.Join(out, " ")
}

// What stands in other sections, or in an answer that denies the name, does not count.
func TestNotFound(t *testing.T) {
	extra := func(change func(*oracle.Msg)) *oracle.Msg {
		a := answer(t, "A.", oracle.TypeA, "a. 60 A 192.0.2.1")
		change(a)
		return a
	}
	for name, c := range map[string]struct {
		a    *oracle.Msg
		want string
	}{
		"additional": {extra(func(a *oracle.Msg) { a.Answer, a.Extra = nil, a.Answer }), ""},
		"authority":  {extra(func(a *oracle.Msg) { a.Answer, a.Ns = nil, a.Answer }), ""},
		"NXDOMAIN":   {extra(func(a *oracle.Msg) { a.Rcode = oracle.RcodeNameError }), ""},
		"SERVFAIL":   {extra(func(a *oracle.Msg) { a.Rcode = oracle.RcodeServerFailure }), ""},
		"BADVERS": {extra(func(a *oracle.Msg) { // whose lower bits say NOERROR
			a.SetEdns0(1232, false)
			a.Rcode = oracle.RcodeBadVers
		}), ""},
		"truncated": {extra(func(a *oracle.Msg) { a.Truncated = true }), "192.0.2.1/60"},
	} {
		if got := found(t, pack(t, c.a)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Answers that are read badly elsewhere: each is refused, none takes long.
func TestRefusedAnswers(t *testing.T) {
	const asked = "\x01a\x00\x00\x01\x00\x01"
	two := [4]uint16{1, 1, 0, 0}
	const rest = "\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"
	for name, b := range map[string][]byte{
		"a question":           raw(0, [4]uint16{1, 0, 0, 0}, asked),
		"a pointer on":         raw(0x8000, two, asked+"\xc0\x20"+rest),
		"a pointer to itself":  raw(0x8000, two, asked+"\xc0\x13"+rest),
		"a short record":       raw(0x8000, two, asked+"\xc0\x0c"+rest[:12]),
		"a record too few":     raw(0x8000, [4]uint16{1, 2, 0, 0}, asked+"\xc0\x0c"+rest),
		"a record too many":    raw(0x8000, [4]uint16{1, 0, 0, 0}, asked+"\xc0\x0c"+rest),
		"65535 records":        raw(0x8000, [4]uint16{1, 65535, 65535, 65535}, asked),
		"no question":          raw(0x8000, [4]uint16{}, ""),
		"records without name": raw(0x8000, two, asked+"\x40"+rest),
	} {
		var m Message
		if err := m.ParseAnswer(b); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	var m Message
	var f Found
	short := raw(0x8000, two, asked+"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x03abc")
	if err := m.ParseAnswer(short); err != nil {
		t.Fatal(err)
	}
	if err := m.Find(&f); err == nil {
		t.Error("an address of three bytes was found")
	}
	// 64 kB of addresses are more than a name has.
	many := raw(0x8000, [4]uint16{1, 4000, 0, 0}, asked)
	for i := range 4000 {
		many = append(many, "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00"...)
		many = append(many, byte(i>>8), byte(i))
	}
	if err := m.ParseAnswer(many); err != nil {
		t.Fatal(err)
	}
	if err := m.Find(&f); err == nil {
		t.Error("4000 addresses were found")
	}
}

func TestAnswersOfOurs(t *testing.T) {
	q := question("wWw.Example.", oracle.TypeA)
	q.CheckingDisabled = true
	for _, edns := range []bool{false, true} {
		if edns {
			q.SetEdns0(4096, true)
		}
		asked := pack(t, q)
		var m Message
		if err := m.ParseQuery(asked); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{
			"REFUSED": AppendDenial(nil, &m, Refused), "NXDOMAIN": AppendDenial(nil, &m, NXDomain),
			"SERVFAIL": AppendDenial(nil, &m, ServFail), "NOERROR": AppendTruncated(nil, &m),
		} {
			var a oracle.Msg
			if err := a.Unpack(b); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if oracle.RcodeToString[a.Rcode] != name || a.Id != q.Id || a.Question[0] != q.Question[0] || !a.Response ||
				!a.RecursionDesired || !a.CheckingDisabled || a.Truncated != (name == "NOERROR") {
				t.Errorf("%s: %v", name, &a)
			}
			if opt := a.IsEdns0(); (opt != nil) != edns || opt != nil && (!opt.Do() || opt.UDPSize() != MaxUDP) {
				t.Errorf("%s: OPT %v", name, opt)
			}
		}
		m.Clamp()
		var clamped oracle.Msg
		if err := clamped.Unpack(asked); err != nil {
			t.Fatal(err)
		}
		if opt := clamped.IsEdns0(); opt != nil && opt.UDPSize() != MaxUDP {
			t.Errorf("goes on with OPT %v", opt)
		}
	}
	if b := AppendRefusal(nil, raw(4<<11, [4]uint16{2, 0, 0, 0}, "x"), Refused); !bytes.Equal(b, raw(0x8085|4<<11, [4]uint16{}, "")) {
		t.Errorf("the refusal of what cannot be read: %x", b)
	}
	for name, b := range map[string][]byte{"an answer": raw(0x8000, [4]uint16{}, ""), "no header": make([]byte, 5)} {
		if got := AppendRefusal(nil, b, Refused); got != nil {
			t.Errorf("%s is answered: %x", name, got)
		}
	}
}

// Nothing is allocated for what is only passed on.
func TestNoAllocation(t *testing.T) {
	q := pack(t, question("www.example.org.", oracle.TypeA))
	a := answer(t, "www.example.org.", 1, "www.example.org. 60 A 192.0.2.1", "www.example.org. 60 A 192.0.2.2")
	a.Compress = true
	b := pack(t, a)
	var m Message
	f := Found{Records: make([]Record, 0, 8)}
	name := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() {
		if m.ParseQuery(q) != nil || m.ParseAnswer(b) != nil || m.Find(&f) != nil {
			t.Fatal("not read")
		}
		name = m.AppendName(name[:0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(f.Records) != 2 || f.Records[1].Addr != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("%+v", f)
	}
}
