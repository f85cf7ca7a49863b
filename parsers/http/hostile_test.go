package http

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/parsers/parsertest"
)

// TestHostile wants not one byte to go upstream from what is ambiguous, neither
// alone nor behind an honest request, and the next request not to be read.
func TestHostile(t *testing.T) {
	line := func(l string) string { return l + "\r\nHost: h\r\n\r\n" }
	target := func(s string) string { return line("GET " + s + " HTTP/1.1") }
	with := func(fields string) string { return "POST / HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n\r\n0\r\n\r\n" }
	for name, tt := range map[string]struct {
		input string
		err   *Refusal
	}{
		// Line ends.
		"LF after request line":   {"GET / HTTP/1.1\nHost: h\r\n\r\n", ErrLineEnd},
		"LF after field":          {"GET / HTTP/1.1\r\nHost: h\n\r\n", ErrLineEnd},
		"LF at the end":           {"GET / HTTP/1.1\r\nHost: h\r\n\n", ErrLineEnd},
		"LF only":                 {"GET / HTTP/1.1\nHost: h\n\n", ErrLineEnd},
		"CR in request line":      {line("GET /\r HTTP/1.1"), ErrTarget},
		"CR after version":        {"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", ErrVersion},
		"CR in value":             {with("A: b\rTransfer-Encoding: chunked"), ErrFieldValue},
		"CR in name":              {with("A\r: b"), ErrFieldName},
		"CRs at the end":          {"GET / HTTP/1.1\r\nHost: h\r\n\r\r\n", ErrFieldName},
		"NUL in value":            {with("A: b\x00c"), ErrFieldValue},
		"NUL in name":             {with("A\x00: b"), ErrFieldName},
		"control in value":        {with("A: \x0b"), ErrFieldValue},
		"DEL in value":            {with("A: \x7f"), ErrFieldValue},
		"LF first":                {"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", ErrMethod},
		"CR first":                {"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", ErrLineEnd},
		"two empty lines":         {"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", ErrEmptyLines},
		"CR after the empty line": {"\r\n\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", ErrEmptyLines},
		// Request line.
		"space first":         {line(" GET / HTTP/1.1"), ErrMethod},
		"no method":           {line("/ HTTP/1.1"), ErrMethod},
		"method not a token":  {line("G(T / HTTP/1.1"), ErrMethod},
		"method with colon":   {line("GET: / HTTP/1.1"), ErrMethod},
		"two spaces":          {line("GET  / HTTP/1.1"), ErrRequestLine},
		"two spaces later":    {line("GET /  HTTP/1.1"), ErrRequestLine},
		"space in target":     {line("GET /a b HTTP/1.1"), ErrRequestLine},
		"tab":                 {line("GET\t/ HTTP/1.1"), ErrMethod},
		"tab in target":       {line("GET /a\tb HTTP/1.1"), ErrTarget},
		"space last":          {line("GET / HTTP/1.1 "), ErrRequestLine},
		"0.9":                 {"GET /\r\n\r\n", ErrVersion},
		"0.9, no target":      {"GET\r\n\r\n", ErrMethod},
		"version 0.9":         {line("GET / HTTP/0.9"), ErrVersion},
		"version 1.2":         {line("GET / HTTP/1.2"), ErrVersion},
		"version 2":           {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ErrVersion},
		"version 1.10":        {line("GET / HTTP/1.10"), ErrVersion},
		"version 01.1":        {line("GET / HTTP/01.1"), ErrVersion},
		"version lower":       {line("GET / http/1.1"), ErrVersion},
		"version other":       {line("GET / ICE/1.0"), ErrVersion},
		"no version":          {line("GET / ICE"), ErrVersion},
		"another protocol":    {"INVALID CONNECTION PREFACE\r\n\r\n", ErrNotHTTP},
		"TLS":                 {"\x16\x03\x01\x02\x00", ErrMethod},
		"PROXY":               {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\r\n", ErrRequestLine},
		"long line":           {target("/" + strings.Repeat("a", 1<<10)), ErrLineLong},
		"long line, no end":   {"GET /" + strings.Repeat("a", 1<<10), ErrLineLong},
		"long method, no end": {strings.Repeat("A", 65), ErrMethod},
		// Target.
		"fragment":           {target("/a#b"), ErrFragment},
		"fragment in query":  {target("/a?b#c"), ErrFragment},
		"raw 8-bit":          {target("/\xc3\xa9"), ErrTarget},
		"raw 8-bit in query": {target("/?\xff"), ErrTarget},
		"control in query":   {target("/?\x01"), ErrTarget},
		"DEL":                {target("/\x7f"), ErrTarget},
		"escaped slash":      {target("/a%2Fb"), ErrEscapedSlash},
		"escaped slash low":  {target("/a%2fb"), ErrEscapedSlash},
		"escaped backslash":  {target("/a%5Cb"), ErrEscapedSlash},
		"escaped NUL":        {target("/a%00b"), ErrEscapedSlash},
		"in removed segment": {target("/..;%2f/b"), ErrEscapedSlash},
		"escaped dots":       {target("/a/%2e%2e;x/b"), ErrEscapedDots},
		"over-long dots":     {target("/%C0%AE%c0%ae/b"), ErrOverlong},
		"over-long slash":    {target("/a%c0%afb"), ErrOverlong},
		"over-long, three":   {target("/a%e0%80%afb"), ErrOverlong},
		"over-long, four":    {target("/a%f0%80%80%afb"), ErrOverlong},
		"over-long, five":    {target("/a%f8%80%80%80%afb"), ErrOverlong},
		"over-long, removed": {target("/a/..;%c0%ae/b"), ErrOverlong},
		"no slash":           {target("a"), ErrTarget},
		"query only":         {target("?a"), ErrTarget},
		"backslash first":    {target("\\a"), ErrTarget},
		"asterisk":           {target("*"), ErrTarget},
		"asterisk and more":  {line("OPTIONS */a HTTP/1.1"), ErrTarget},
		"authority":          {target("h:80"), ErrTarget},
		"https":              {target("https://h/"), ErrTarget},
		"no authority":       {target("http://"), ErrTarget},
		"empty authority":    {target("http:///a"), ErrAuthority},
		"other authority":    {target("http://other/a"), ErrAuthority},
		"authority's case":   {target("http://H/a"), ErrAuthority},
		"authority's port":   {target("http://h:80/a"), ErrAuthority},
		"user information":   {target("http://u@h/a"), ErrAuthority},
		"absolute, no Host":  {"GET http://h/ HTTP/1.0\r\n\r\n", ErrAuthority},
		"CONNECT no port":    {line("CONNECT h HTTP/1.1"), ErrTarget},
		"CONNECT path":       {line("CONNECT /h:443 HTTP/1.1"), ErrTarget},
		"CONNECT absolute":   {line("CONNECT http://h:443/ HTTP/1.1"), ErrTarget},
		"CONNECT IPv6":       {line("CONNECT [::1] HTTP/1.1"), ErrTarget},
		"CONNECT user":       {line("CONNECT u@h:443 HTTP/1.1"), ErrTarget},
		"CONNECT other Host": {line("CONNECT i:443 HTTP/1.1"), ErrAuthority},
		"CONNECT other port": {"CONNECT h:443 HTTP/1.1\r\nHost: h:80\r\n\r\n", ErrAuthority},
		"CONNECT no Host":    {"CONNECT h:443 HTTP/1.1\r\n\r\n", ErrHostMissing},
		"TRACE content":      {"TRACE / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", ErrTrace},
		"CONNECT content":    {"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nContent-Length: 5\r\n\r\nhello", ErrConnect},
		"CONNECT chunks":     {"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ErrConnect},
		// Fields.
		"folded":            {with("A: b\r\n c: d"), ErrFolded},
		"folded by tab":     {with("A: b\r\n\tc"), ErrFolded},
		"folded first":      {"GET / HTTP/1.1\r\n Host: h\r\n\r\n", ErrFolded},
		"fold of spaces":    {with("A: b\r\n  "), ErrFolded},
		"space for colon":   {with("Content-Length : 1"), ErrFieldName},
		"tab before colon":  {with("Transfer-Encoding\t: chunked"), ErrFieldName},
		"no colon":          {with("Content-Length"), ErrFieldName},
		"empty name":        {with(": b"), ErrFieldName},
		"8-bit name":        {with("\xe9: b"), ErrFieldName},
		"name in brackets":  {with("A[b]: c"), ErrFieldName},
		"too many":          {with(strings.TrimSuffix(strings.Repeat("A: b\r\n", 100), "\r\n")), ErrFieldsMany},
		"head too long":     {with("A: " + strings.Repeat("b", 4<<10)), ErrHeadLong},
		"head without end":  {"GET / HTTP/1.1\r\nA: " + strings.Repeat("b", 4<<10), ErrHeadLong},
		"expect other":      {with("Expect: 200-ok"), ErrExpect},
		"expect disguised":  {with("Expect: y 100-continue"), ErrExpect},
		"expect twice":      {with("Expect: 100-continue\r\nExpect: 100-continue"), ErrExpect},
		"option length":     {with("Content-Length: 5\r\nConnection: close, content-length"), ErrOption},
		"option coding":     {with("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked"), ErrOption},
		"option host":       {with("Connection: host"), ErrOption},
		"option token":      {with("X-Token: a\r\nConnection: close, x-token"), ErrOption},
		"option cookie":     {with("Connection: Cookie\r\nCookie: a=b"), ErrOption},
		"underscore length": {with("Content_Length: 5"), ErrUnderscore},
		"underscore coding": {with("transfer_encoding: chunked"), ErrUnderscore},
		// Host.
		"no Host":         {"GET / HTTP/1.1\r\n\r\n", ErrHostMissing},
		"two Hosts":       {"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", ErrHostRepeated},
		"two Hosts, 1.0":  {"GET / HTTP/1.0\r\nHost: h\r\nhost: i\r\n\r\n", ErrHostRepeated},
		"empty Host":      {"GET / HTTP/1.1\r\nHost: \r\n\r\n", ErrHost},
		"Host list":       {"GET / HTTP/1.1\r\nHost: h, i\r\n\r\n", ErrHost},
		"Host with space": {"GET / HTTP/1.1\r\nHost: h i\r\n\r\n", ErrHost},
		"Host with path":  {"GET / HTTP/1.1\r\nHost: h/a\r\n\r\n", ErrHost},
		"Host with user":  {"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", ErrHost},
		"Host escaped":    {"GET / HTTP/1.1\r\nHost: %68\r\n\r\n", ErrHost},
		"Host 8-bit":      {"GET / HTTP/1.1\r\nHost: h\xc3\xa9\r\n\r\n", ErrHost},
		"Host port":       {"GET / HTTP/1.1\r\nHost: h:8x\r\n\r\n", ErrHost},
		"Host port range": {"GET / HTTP/1.1\r\nHost: h:65536\r\n\r\n", ErrHost},
		"Host no port":    {"GET / HTTP/1.1\r\nHost: h:\r\n\r\n", ErrHost},
		"Host port only":  {"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", ErrHost},
		"Host two ports":  {"GET / HTTP/1.1\r\nHost: h:80:80\r\n\r\n", ErrHost},
		"Host IPv6 open":  {"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", ErrHost},
		"Host IPv6 bare":  {"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", ErrHost},
		"Host IPv6 zone":  {"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", ErrHost},
		// Framing.
		"CL and TE":            {with("Content-Length: 5\r\nTransfer-Encoding: chunked"), ErrBothFramings},
		"TE and CL":            {with("Transfer-Encoding: chunked\r\nContent-Length: 5"), ErrBothFramings},
		"CL 0 and TE":          {with("Content-Length: 0\r\nTransfer-Encoding: chunked"), ErrBothFramings},
		"CL twice":             {with("Content-Length: 5\r\nContent-Length: 6"), ErrLengthTwice},
		"CL twice, same":       {with("Content-Length: 5\r\ncontent-length: 5"), ErrLengthTwice},
		"CL list":              {with("Content-Length: 5, 5"), ErrLength},
		"CL sign":              {with("Content-Length: +5"), ErrLength},
		"CL minus":             {with("Content-Length: -5"), ErrLength},
		"CL hex":               {with("Content-Length: 0x5"), ErrLength},
		"CL octal":             {with("Content-Length: 05"), ErrLength},
		"CL empty":             {with("Content-Length:"), ErrLength},
		"CL letters":           {with("Content-Length: 5a"), ErrLength},
		"CL space":             {with("Content-Length: 5 5"), ErrLength},
		"CL fraction":          {with("Content-Length: 5.0"), ErrLength},
		"CL quoted":            {with("Content-Length: \"5\""), ErrLength},
		"CL underscores":       {with("Content-Length: 1_0"), ErrLength},
		"CL overflow":          {with("Content-Length: 18446744073709551621"), ErrLength},
		"CL overflow signed":   {with("Content-Length: 9223372036854775808"), ErrLength},
		"TE empty":             {with("Transfer-Encoding:"), ErrCoding},
		"TE identity":          {with("Transfer-Encoding: identity"), ErrCoding},
		"TE list":              {with("Transfer-Encoding: gzip, chunked"), ErrCoding},
		"TE chunked twice":     {with("Transfer-Encoding: chunked, chunked"), ErrCoding},
		"TE twice":             {with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), ErrCoding},
		"TE twice, other":      {with("Transfer-Encoding: chunked\r\nTransfer-encoding: cow"), ErrCoding},
		"TE prefix":            {with("Transfer-Encoding: xchunked"), ErrCoding},
		"TE quoted":            {with("Transfer-Encoding: \"chunked\""), ErrCoding},
		"TE parameter":         {with("Transfer-Encoding: chunked;q=1"), ErrCoding},
		"TE comma":             {with("Transfer-Encoding: ,chunked"), ErrCoding},
		"TE vertical tab":      {with("Transfer-Encoding: \x0bchunked"), ErrFieldValue},
		"TE no-break space":    {with("Transfer-Encoding: \xa0chunked"), ErrCoding},
		"TE Kelvin":            {with("Transfer-Encoding: chun\xe2\x84\xaaed"), ErrCoding},
		"TE in 1.0":            {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ErrCodingVersion},
		"TE folded":            {with("Transfer-Encoding:\r\n chunked"), ErrCoding},
		"TE behind a space":    {with("A: b\r\n Transfer-Encoding: chunked"), ErrFolded},
		"TE hidden by bare CR": {with("A: b\r\rTransfer-Encoding: chunked"), ErrFieldValue},
	} {
		t.Run(name, func(t *testing.T) {
			for _, before := range []string{"", get} {
				o := playAll(t, small, c(before+tt.input), c(get))
				if o.server != before {
					t.Errorf("server got %q", o.server)
				}
				if strings.Count(o.log, "\n") > 2 || !strings.Contains(o.log, " client "+tt.err.Error()) {
					t.Errorf("want %v, log\n%s", tt.err, o.log)
				}
				if before == "" && (o.client != refusal(tt.err) || !o.relay.Closed) {
					t.Errorf("client got %q, %s", o.client, o.state)
				}
			}
		})
	}
}

// TestHostileBodies wants nothing to go upstream of a request whose chunked body is
// wrong; of one that came late, nothing from the first thing on that is.
func TestHostileBodies(t *testing.T) {
	head := "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, tt := range map[string]struct {
		good, bad string
		err       *Refusal
	}{
		"no size":              {"", "\r\n", ErrChunk},
		"size not hex":         {"", "g\r\n", ErrChunk},
		"0x":                   {"", "0x5\r\nhello\r\n", ErrChunk},
		"sign":                 {"", "+5\r\nhello\r\n", ErrChunk},
		"underscore":           {"", "1_0\r\n", ErrChunk},
		"space before":         {"", " 5\r\nhello\r\n", ErrChunk},
		"space behind":         {"", "5 \r\nhello\r\n", ErrChunk},
		"space before ;":       {"", "5 ;a\r\nhello\r\n", ErrChunk},
		"tab behind":           {"", "5\t\r\nhello\r\n", ErrChunk},
		"overflow 64":          {"", "10000000000000005\r\nhello\r\n", ErrChunk},
		"overflow 63":          {"", "8000000000000000\r\nhello\r\n", ErrChunk},
		"many zeros":           {"", "00000000000000005\r\nhello\r\n", ErrChunk},
		"LF behind size":       {"", "5\nhello\r\n", ErrLineEnd},
		"CR behind size":       {"", "5\r\r\nhello\r\n", ErrChunk},
		"LF in extension":      {"", "5;a\nhello\r\n", ErrLineEnd},
		"CR in extension":      {"", "5;a=\"\r\"\r\nhello\r\n", ErrChunk},
		"extension no name":    {"", "5;\r\nhello\r\n", ErrChunk},
		"extension no value":   {"", "5;a=\r\nhello\r\n", ErrChunk},
		"extension open quote": {"", "5;a=\"b\r\nhello\r\n", ErrChunk},
		"extension backslash":  {"", "5;a=\"b\\\r\nhello\r\n", ErrChunk},
		"extension 8-bit":      {"", "5;a=\xe9\r\nhello\r\n", ErrChunk},
		"extension NUL":        {"", "5;\x00\r\nhello\r\n", ErrChunk},
		"extension long":       {"", "5;" + strings.Repeat("a", 1<<10) + "\r\n", ErrChunk},
		"extension no end":     {"", "5;" + strings.Repeat("a", 1<<10), ErrChunk},
		"data too long":        {"5\r\nhello", "!\r\n0\r\n\r\n", ErrChunk},
		"data ends in LF":      {"5\r\nhello", "\n0\r\n\r\n", ErrChunk},
		"data ends in CR":      {"5\r\nhello", "\r0\r\n\r\n", ErrChunk},
		"end in LF":            {"0\r\n", "\n", ErrLineEnd},
		"trailer length":       {"0\r\nA: b\r\n", "Content-Length: 5\r\n\r\n", ErrTrailer},
		"trailer coding":       {"0\r\n", "transfer-encoding: chunked\r\n\r\n", ErrTrailer},
		"trailer host":         {"0\r\n", "Host: i\r\n\r\n", ErrTrailer},
		"trailer folded":       {"0\r\nA: b\r\n", " c\r\n\r\n", ErrFolded},
		"trailer no colon":     {"0\r\n", "GET / HTTP/1.1\r\n\r\n", ErrFieldName},
		"trailers long":        {"0\r\n", "A: " + strings.Repeat("b", 8<<10), ErrHeadLong},
		"trailers many":        {"0\r\n" + strings.Repeat("A: b\r\n", 100), "A: b\r\n\r\n", ErrFieldsMany},
	} {
		t.Run(name, func(t *testing.T) {
			o := playAll(t, Limits{}, c(head+tt.good+tt.bad+get))
			if o.server != "" || o.client != refusal(tt.err) || !o.relay.Closed || len(o.judge.requests) > 0 {
				t.Errorf("server got %q, client %q, %s", o.server, o.client, o.state)
			}
			o = playAll(t, Limits{}, c(head), c(later), c(tt.good), c(tt.bad+get))
			if o.server != head+tt.good || o.client != refusal(tt.err) || o.relay.Err != error(tt.err) {
				t.Errorf("late: server got %q, client %q, %s", o.server, o.client, o.state)
			}
			denied := strings.Replace(head, " / ", " /deny ", 1)
			if o := playAll(t, Limits{}, c(denied+tt.good+tt.bad+get)); o.server != "" || !o.relay.Closed {
				t.Errorf("denied: server got %q, %s", o.server, o.state)
			}
		})
	}
}

// TestCorpus plays the corpus of what is ambiguous, alone and behind an honest
// request.
func TestCorpus(t *testing.T) {
	for name, input := range parsertest.AmbiguousHTTP() {
		for _, before := range []string{"", get} {
			o := playAll(t, Limits{}, c(before+input), v(ok), c(get))
			if o.server != before || !o.relay.Closed {
				t.Errorf("%s: server got %q, %s\n%s", name, o.server, o.state, o.log)
			}
			if n := len(o.judge.requests); n != strings.Count(before, "GET") {
				t.Errorf("%s: %d requests were judged", name, n)
			}
		}
	}
	for name, input := range parsertest.HostileChunks() {
		for _, before := range []string{"", get} {
			o := playAll(t, Limits{}, c(before+input), v(ok), c(get))
			if o.server != before || !o.relay.Closed || len(o.judge.requests) != strings.Count(before, "GET") {
				t.Errorf("%s: server got %q, %s\n%s", name, o.server, o.state, o.log)
			}
		}
		head := strings.Index(input, "\r\n\r\n") + 4
		o := playAll(t, Limits{}, c(input[:head]), c(later), c(input[head:]), v(ok), c(get))
		if n := len(parsertest.Lenient(o.server)); n != 1 || !o.relay.Closed || len(o.judge.requests) != 1 {
			t.Errorf("%s, late: server read %d requests in %q, %s\n%s", name, n, o.server, o.state, o.log)
		}
	}
}

// TestJudgedAsForwarded looks at what other readers make of honest oddities.
func TestJudgedAsForwarded(t *testing.T) {
	for _, input := range []string{
		"GET /a;x=1/b?c=%2e%2e/%2f HTTP/1.1\r\nHost: H.example:8080\r\nX: \x80\xff\r\n\r\n",
		"GET /%zz/%%34%31 HTTP/1.1\r\nHost: h\r\n\r\n" + get,
		"get /a\\..\\b HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n" + get,
		"POST http://h/../a//b HTTP/1.1\r\nHost: h\r\nContent-Length: 28\r\n\r\n" + get + get,
		"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\n\r\n1c\r\n" + get + "\r\n0\r\n\r\n" + get,
		"GET /deny HTTP/1.1\r\nHost: h\r\nContent-Length: 28\r\n\r\n" + get + get,
	} {
		o := playAll(t, Limits{}, c(input))
		if strings.Contains(o.log, "http:") {
			t.Errorf("%q refused: %s", input, o.log)
		}
		checkUpstream(t, o)
	}
}
