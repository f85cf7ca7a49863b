package tls

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

// said is a ClientHello to be written.
type said struct {
	version    uint16
	names      []byte // the extension's value; nil: none
	before     []byte // extensions
	behind     []byte
	extensions []byte // instead of all those
}

func vector(size int, b []byte) []byte {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(b)))
	return append(slices.Clone(n[4-size:]), b...)
}

func extension(kind uint16, value []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, kind), vector(2, value)...)
}

func names(list ...string) []byte {
	var all []byte
	for _, n := range list {
		all = append(append(all, hostName), vector(2, []byte(n))...)
	}
	return vector(2, all)
}

// message is the hello without its record.
func (s said) message() []byte {
	if s.version == 0 {
		s.version = 0x0303
	}
	b := append(binary.BigEndian.AppendUint16(nil, s.version), bytes.Repeat([]byte{7}, randomSize)...)
	b = append(b, vector(1, []byte("session"))...)
	b = append(b, vector(2, []byte{0x13, 1, 0x13, 2})...)
	b = append(b, vector(1, []byte{0})...)
	all := s.extensions
	if all == nil {
		all = slices.Clone(s.before)
		if s.names != nil {
			all = append(all, extension(extensionName, s.names)...)
		}
		all = vector(2, append(all, s.behind...))
	}
	return append([]byte{clientHello}, vector(3, append(b, all...))...)
}

// records divides a message among records of at most so many bytes.
func records(message []byte, most int) (all []byte) {
	for part := range slices.Chunk(message, most) {
		all = append(append(all, handshake, major, 1), vector(2, part)...)
	}
	return all
}

func hello(name string) []byte { return records(said{names: names(name)}.message(), maxRecord) }

// judge is the hooks of a session under test.
type judge struct {
	allowed    []string
	asked      []string
	malformed  []error
	pass       bool
	unanswered int
}

func (j *judge) Request(_ uint64, r policy.Request) policy.Decision {
	name := r.(*policy.TLSRequest).ServerName
	j.asked = append(j.asked, name)
	if slices.Contains(j.allowed, name) {
		return policy.Decision{Verdict: policy.Allow}
	}
	return policy.Decision{}
}
func (j *judge) Response(uint64, parsers.Answer) {}
func (j *judge) Unanswered(uint64)               { j.unanswered++ }
func (j *judge) Malformed(_ uint64, _ parsers.Side, err error) bool {
	j.malformed = append(j.malformed, err)
	return j.pass
}

// splits are the ways in which each test is fed.
func splits() map[string]parsertest.Splits {
	all := map[string]parsertest.Splits{"whole": parsertest.Whole, "bytewise": parsertest.Bytewise}
	for seed := range uint64(3) {
		all[fmt.Sprint("random ", seed)] = parsertest.Random(seed)
	}
	return all
}

// real is what crypto/tls says first.
func real(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() { _ = tls.Client(a, config).Handshake() }()
	_ = b.SetDeadline(time.Now().Add(time.Minute))
	head := make([]byte, recordHead)
	if _, err := io.ReadFull(b, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(b, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// TestHellos reads hellos however they come, and passes them on as they were.
func TestHellos(t *testing.T) {
	long := strings.Repeat("a", 63)
	full := strings.Join([]string{long, long, long, long[:63]}, ".")
	for name, tt := range map[string]struct {
		bytes []byte
		want  string
	}{
		"one record":         {hello("www.example.com"), "www.example.com"},
		"case":               {hello("WWW.Example.COM"), "www.example.com"},
		"one label":          {hello("db"), "db"},
		"underscore":         {hello("_a.b-c.d"), "_a.b-c.d"},
		"digits":             {hello("1.2.3.4a"), "1.2.3.4a"},
		"as long as can be":  {hello(full), full},
		"three records":      {records(said{names: names("a.example")}.message(), 40), "a.example"},
		"a record a byte":    {records(said{names: names("a.example")}.message(), 1), "a.example"},
		"record version 3.0": {bytes.Replace(hello("a.example"), []byte{22, 3, 1}, []byte{22, 3, 0}, 1), "a.example"},
		"record version 3.4": {bytes.Replace(hello("a.example"), []byte{22, 3, 1}, []byte{22, 3, 4}, 1), "a.example"},
		"TLS 1.0":            {records(said{version: 0x0301, names: names("a.example")}.message(), maxRecord), "a.example"},
		"between others":     {records(said{before: extension(0x0a0a, nil), names: names("a.example"), behind: extension(extensionPSK, []byte("x"))}.message(), maxRecord), "a.example"},
		"long":               {records(said{before: extension(21, make([]byte, MaxHello-200)), names: names("a.example")}.message(), maxRecord), "a.example"},
		"no name":            {records(said{before: extension(16, []byte("x"))}.message(), maxRecord), ""},
		"no extensions":      {records(said{extensions: []byte{}}.message(), maxRecord), ""},
		"none of them":       {records(said{extensions: []byte{0, 0}}.message(), maxRecord), ""},
		"Go":                 {real(t, &tls.Config{ServerName: "go.example"}), "go.example"},
		"Go, TLS 1.2":        {real(t, &tls.Config{ServerName: "go.example", MaxVersion: tls.VersionTLS12}), "go.example"},
		"Go, no name":        {real(t, &tls.Config{InsecureSkipVerify: true}), ""},
	} {
		for way, split := range splits() {
			j := &judge{allowed: []string{tt.want}}
			r := parsertest.New(New(j))
			r.Splits = split
			r.Write(parsers.Client, tt.bytes)
			if len(j.asked) != 1 || j.asked[0] != tt.want || len(j.malformed) > 0 {
				t.Fatalf("%s, %s: asked for %q, %v", name, way, j.asked, j.malformed)
			}
			// Early data, an answer, and whatever follows.
			early := append([]byte{applicationData, 3, 3}, vector(2, []byte("early"))...)
			r.Write(parsers.Client, early)
			answer := []byte("\x15\x03\x03\x00\x02\x02\x28")
			r.Write(parsers.Server, answer)
			r.Write(parsers.Client, []byte("what"))
			r.Write(parsers.Server, []byte("ever"))
			r.CloseWrite(parsers.Client)
			r.Write(parsers.Server, []byte(" it is"))
			r.CloseWrite(parsers.Server)
			if want := slices.Concat(tt.bytes, early, []byte("what")); !bytes.Equal(r.Out[parsers.Server], want) {
				t.Errorf("%s, %s: the server got %x", name, way, r.Out[parsers.Server])
			}
			if want := string(answer) + "ever it is"; string(r.Out[parsers.Client]) != want {
				t.Errorf("%s, %s: the client got %q", name, way, r.Out[parsers.Client])
			}
			if !r.FIN[0] || !r.FIN[1] || r.Err != nil || j.unanswered != 1 {
				t.Errorf("%s, %s: %v %v %d", name, way, r.FIN, r.Err, j.unanswered)
			}
		}
	}
}

// TestAmbiguous refuses what two readers could take for different things: not a byte of
// it gets to the server.
func TestAmbiguous(t *testing.T) {
	of := func(s said) []byte { return records(s.message(), maxRecord) }
	named := extension(extensionName, names("a.example"))
	message := said{names: names("a.example")}.message()
	longer := func(by int, b []byte) []byte { // the message says that it is longer than it is
		b = slices.Clone(b)
		b[recordHead+3] += byte(by)
		return b
	}
	for name, tt := range map[string]struct {
		bytes []byte
		want  error
	}{
		"HTTP":                   {[]byte("GET / HTTP/1.1\r\n\r\n"), errNotTLS},
		"SSH":                    {[]byte("SSH-2.0-OpenSSH_9\r\n"), errNotTLS},
		"SSL 2":                  {[]byte{0x80, 46, 1, 0, 2, 0, 21, 0, 0, 0, 16}, errSSL2},
		"SSL 2 or nothing":       {[]byte{0x80, 46, 2}, errNotTLS},
		"an alert":               {[]byte{21, 3, 1, 0, 2, 2, 40}, errNotTLS},
		"DTLS":                   {[]byte{22, 0xfe, 0xfd, 0, 0, 0, 0}, errNotTLS},
		"another version":        {[]byte{22, 2, 0, 0, 5}, errNotTLS},
		"a hello of a server":    {[]byte{22, 3, 3, 0, 5, 2, 0, 0, 1, 0}, errHello},
		"an empty record":        {[]byte{22, 3, 3, 0, 0}, errEmpty},
		"an empty record later":  {slices.Concat(records(message[:9], 9), []byte{22, 3, 1, 0, 0}), errEmpty},
		"a long record":          {[]byte{22, 3, 3, 0x40, 1}, errLong},
		"a long hello":           {[]byte{22, 3, 3, 0, 5, 1, 1, 0, 0, 3}, errLong},
		"too many records":       {records(said{before: extension(21, make([]byte, 8000)), names: names("a.example")}.message(), 1), errLong},
		"alert within":           {slices.Concat(records(message[:9], 9), []byte{21, 3, 1, 0, 2, 1, 0}), errHello},
		"data within":            {slices.Concat(records(message[:9], 9), []byte{23, 3, 1, 0, 2, 1, 0}), errHello},
		"another behind":         {records(append(slices.Clone(message), message...), maxRecord), errBehind},
		"a byte behind":          {records(append(slices.Clone(message), 0), maxRecord), errBehind},
		"too short for all":      {longer(-1, hello("a.example")), errBehind},
		"SSL 2 within":           {of(said{version: 0x0002, names: names("a.example")}), errHello},
		"twice":                  {of(said{before: named, names: names("b.example")}), errTwice},
		"twice the same":         {of(said{before: named, names: names("a.example")}), errTwice},
		"another twice":          {of(said{before: extension(16, nil), names: names("a.example"), behind: extension(16, nil)}), errTwice},
		"two names":              {of(said{names: names("a.example", "b.example")}), errNames},
		"a name twice":           {of(said{names: names("a.example", "a.example")}), errNames},
		"no name in the list":    {of(said{names: []byte{0, 0}}), errNames},
		"nothing":                {of(said{names: []byte{}}), errLength},
		"an empty name":          {of(said{names: names("")}), errName},
		"another type":           {of(said{names: []byte{0, 4, 1, 0, 1, 'a'}}), errType},
		"something in the list":  {of(said{names: []byte{0, 5, 0, 0, 1, 'a', 'b'}}), errNames},
		"behind the list":        {of(said{names: []byte{0, 4, 0, 0, 1, 'a', 'b'}}), errLength},
		"a short list":           {of(said{names: []byte{0, 9, 0, 0, 1, 'a'}}), errLength},
		"a short name":           {of(said{names: []byte{0, 4, 0, 0, 9, 'a'}}), errLength},
		"a dot at the end":       {of(said{names: names("a.example.")}), errDot},
		"a dot first":            {of(said{names: names(".a.example")}), errName},
		"two dots":               {of(said{names: names("a..example")}), errName},
		"a dot":                  {of(said{names: names(".")}), errName},
		"IPv4":                   {of(said{names: names("192.0.2.1")}), errAddress},
		"IPv4 shorter":           {of(said{names: names("127.1")}), errAddress},
		"a number":               {of(said{names: names("2130706433")}), errAddress},
		"hexadecimal":            {of(said{names: names("0x7F000001")}), errAddress},
		"hexadecimal part":       {of(said{names: names("127.0.0.0xa")}), errAddress},
		"IPv6":                   {of(said{names: names("2001:db8::1")}), errAddress},
		"IPv6 in brackets":       {of(said{names: names("[::1]")}), errAddress},
		"NUL":                    {of(said{names: names("a.example\x00.b")}), errName},
		"a line":                 {of(said{names: names("a\n.example")}), errName},
		"UTF-8":                  {of(said{names: names("b\u00fccher.example")}), errName},
		"a star":                 {of(said{names: names("*.example")}), errName},
		"a port":                 {of(said{names: names("a.example:443")}), errAddress},
		"a long label":           {of(said{names: names(strings.Repeat("a", 64) + ".example")}), errName},
		"a long name":            {of(said{names: names(strings.Repeat("a.", 130) + "b")}), errName},
		"extensions too short":   {of(said{extensions: vector(2, append(slices.Clone(named), 0))}), errLength},
		"behind the extensions":  {of(said{extensions: append(vector(2, named), 0)}), errLength},
		"half a length":          {of(said{extensions: []byte{0}}), errLength},
		"an extension too short": {of(said{before: []byte{0, 16, 0, 200}, names: names("a.example")}), errLength},
		"keys before":            {of(said{before: extension(extensionPSK, nil), names: names("a.example")}), errPSK},
		"many extensions":        {of(said{before: many(), names: names("a.example")}), errMany},
		"no suites":              {bytes.Replace(hello("a.example"), []byte{0, 4, 0x13, 1, 0x13, 2}, []byte{0, 0, 1, 0, 0, 0}, 1), errLength},
		"odd suites":             {bytes.Replace(hello("a.example"), []byte{0, 4, 0x13, 1, 0x13, 2}, []byte{0, 3, 0x13, 1, 0x13, 1}, 1), errLength},
		"no compression":         {bytes.Replace(hello("a.example"), []byte{0x13, 2, 1, 0}, []byte{0x13, 2, 0, 0}, 1), errLength},
		"a long session id":      {bytes.Replace(hello("a.example"), []byte("\x07session"), []byte("\x21session"), 1), errLength},
		"a short hello":          {[]byte{22, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3}, errLength},
	} {
		for way, split := range splits() {
			j := &judge{allowed: []string{"", "a.example", "a", "a.example."}}
			r := parsertest.New(New(j))
			r.Splits = split
			r.Write(parsers.Client, tt.bytes)
			if len(j.malformed) != 1 || !errors.Is(j.malformed[0], tt.want) || len(j.asked) > 0 {
				t.Fatalf("%s, %s: %v, asked for %q; want %v", name, way, j.malformed, j.asked, tt.want)
			}
			if len(r.Out[parsers.Server]) > 0 || !r.Closed {
				t.Errorf("%s, %s: the server got %x, closed %v", name, way, r.Out[parsers.Server], r.Closed)
			}
			told := len(r.Out[parsers.Client]) > 0
			if tls := tt.want != errNotTLS && tt.want != errSSL2; told != tls {
				t.Errorf("%s, %s: the client was told %x", name, way, r.Out[parsers.Client])
			}
		}
		// Where nothing is enforced all of it goes on.
		j := &judge{pass: true}
		r := parsertest.New(New(j))
		r.Write(parsers.Client, tt.bytes)
		r.Write(parsers.Client, []byte("more"))
		if want := string(tt.bytes) + "more"; string(r.Out[parsers.Server]) != want {
			t.Errorf("%s: the server got %x", name, r.Out[parsers.Server])
		}
	}
}

func many() (all []byte) {
	for i := range maxExtensions {
		all = append(all, extension(uint16(1000+i), nil)...)
	}
	return all
}

// TestHalf is of clients that go away.
func TestHalf(t *testing.T) {
	whole := hello("a.example")
	for n := range whole {
		j := &judge{allowed: []string{"a.example"}}
		r := parsertest.New(New(j))
		r.Write(parsers.Client, whole[:n])
		r.CloseWrite(parsers.Client)
		if len(r.Out[parsers.Server]) > 0 || !r.Closed || len(j.malformed) != min(n, 1) {
			t.Errorf("%d bytes: %x %v %v", n, r.Out[parsers.Server], r.Closed, j.malformed)
		}
	}
}

// TestDenied tells the client so.
func TestDenied(t *testing.T) {
	for version, want := range map[uint16]string{
		0x0301: "\x15\x03\x01\x00\x02\x02\x31", 0x0303: "\x15\x03\x03\x00\x02\x02\x31", 0x0304: "\x15\x03\x03\x00\x02\x02\x31",
	} {
		j := &judge{}
		r := parsertest.New(New(j))
		r.Write(parsers.Client, records(said{version: version, names: names("b.example")}.message(), 99))
		if string(r.Out[parsers.Client]) != want || !r.Closed || len(r.Out[parsers.Server]) > 0 {
			t.Errorf("%x: %x, closed %v", version, r.Out[parsers.Client], r.Closed)
		}
	}
}

// TestServerFirst: a server has nothing to say before the name was judged.
func TestServerFirst(t *testing.T) {
	for _, pass := range []bool{false, true} {
		j := &judge{pass: pass}
		r := parsertest.New(New(j))
		r.Write(parsers.Server, []byte("220 mail.example ESMTP\r\n"))
		r.Write(parsers.Client, []byte("EHLO me\r\n"))
		if got := len(r.Out[0]) > 0 && len(r.Out[1]) > 0; got != pass || r.Closed == pass {
			t.Errorf("pass %v: %q, closed %v", pass, r.Out, r.Closed)
		}
	}
}
