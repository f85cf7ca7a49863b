package parsertest

import "strings"

// smuggled is what an attacker wants to be taken for a request of its own.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

// AmbiguousHTTP are HTTP/1 requests that two readers could take for different
// things, after RFC 9112 (sections 2.2, 3, 5.1, 5.2, 6.3, 7.1 and 11.2) and the
// classes of published desynchronisation: CL.TE, TE.CL, TE.TE, CL.0, 0.CL,
// obfuscated names and values, folding, line ends, Expect, hop-by-hop fields,
// request targets and hosts. Not a byte of them may go upstream.
func AmbiguousHTTP() map[string]string {
	all := map[string]string{}
	post := func(name string, fields ...string) {
		all[name] = "POST /p HTTP/1.1\r\nHost: h\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n0\r\n\r\n" + smuggled
	}
	for name, coding := range map[string]string{
		"x before": "xchunked", "list": "gzip, chunked", "list, empty": ", chunked", "list, last": "chunked, identity",
		"twice in one": "chunked, chunked", "single quotes": "'chunked'", "quotes": `"chunked"`, "parameter": "chunked;a=b",
		"NUL before": "\x00chunked", "NUL behind": "chunked\x00", "vertical tab": "\x0bchunked", "form feed": "chunked\x0c",
		"no-break space": "\xa0chunked", "UTF-8 space": "\xc2\xa0chunked", "fullwidth": "\xef\xbd\x83hunked", "long s": "chunked\xc5\xbf",
		"bare CR": "\rchunked", "bare LF": "\nchunked", "folded": "\r\n chunked", "folded later": "chunked\r\n , identity",
		"identity": "identity", "nothing": "", "colon": ": chunked", "other": "cow", "prefix": "chunke", "and more": "chunkedfoo",
		"dot": "chunked.", "space within": "chun ked", "comma behind": "chunked,", "comment": "(a) chunked",
	} {
		post("coding: "+name, "Transfer-Encoding: "+coding)
		post("length and coding: "+name, "Content-Length: 5", "Transfer-Encoding: "+coding)
	}
	for name, field := range map[string]string{
		"space before colon": "Transfer-Encoding : chunked", "tab before colon": "Transfer-Encoding\t: chunked",
		"space first": " Transfer-Encoding: chunked", "underscore": "Transfer_Encoding: chunked", "NUL": "Transfer-Encoding\x00: chunked",
		"8-bit": "Transfer\xadEncoding: chunked", "UTF-8": "Transfer-Encod\xc4\xb1ng: chunked", "bare LF": "A: b\nTransfer-Encoding: chunked",
		"bare CR": "A: b\rTransfer-Encoding: chunked", "CR CR LF": "A: b\r\r\nTransfer-Encoding: chunked", "no colon": "Transfer-Encoding chunked",
		"two lines, one folded": "Transfer-Encoding\r\n: chunked", "quoted name": `"Transfer-Encoding": chunked`, "brackets": "Transfer-Encoding[]: chunked",
		"twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "twice, other": "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
		"hidden by a fold": "A: b\r\n Transfer-Encoding: chunked", "as option": "Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
		"with length": "Transfer-Encoding: chunked\r\nContent-Length: 5", "with length 0": "Content-Length: 0\r\nTransfer-Encoding: chunked",
	} {
		post("coding's name: "+name, field)
	}
	for name, value := range map[string]string{
		"sign": "+5", "minus": "-5", "minus zero": "-0", "hex": "0x5", "octal": "05", "list": "5, 5", "list, other": "5,6", "space within": "5 6", "nothing": "",
		"letters": "5abc", "exponent": "5e0", "fraction": "5.0", "underscore": "1_0", "quotes": `"5"`, "NUL": "5\x00", "vertical tab": "\x0b5",
		"no-break space": "\xa05", "fullwidth": "\xef\xbc\x95", "bare CR": "5\r6", "bare LF": "5\n6", "folded": "\r\n 5", "folded later": "5\r\n 6",
		"64 bits": "18446744073709551621", "63 bits": "9223372036854775808", "many": strings.Repeat("9", 400), "semicolon": "5;", "colon": ": 5",
	} {
		post("length: "+name, "Content-Length: "+value)
	}
	for name, fields := range map[string]string{
		"twice": "Content-Length: 5\r\nContent-Length: 6", "twice, same": "Content-Length: 5\r\nContent-Length: 5",
		"space before colon": "Content-Length : 5", "tab before colon": "Content-Length\t: 5", "space first": " Content-Length: 5",
		"underscore": "Content_Length: 5", "beside an underscore": "Content-Length: 5\r\nContent_Length: 6", "NUL": "Content\x00-Length: 5",
		"as option": "Content-Length: 5\r\nConnection: keep-alive, Content-Length", "bare LF": "A: b\nContent-Length: 5", "bare CR": "A: b\rContent-Length: 5",
		"no colon": "Content-Length", "no name": ": 5", "space for colon": "Content-Length 5", "8-bit": "C\xf6ntent-Length: 5",
		"CR first": "\rContent-Length: 5", "folded": "A: b\r\n\tContent-Length: 5",
	} {
		post("length's name: "+name, fields)
	}
	for name, fields := range map[string]string{
		"other": "Expect: x", "list": "Expect: 100-continue, x", "twice": "Expect: 100-continue\r\nExpect: 100-continue", "word before": "Expect: y 100-continue",
		"folded": "Expect:\r\n 100-continue", "nothing": "Expect:", "option": "X-User: a\r\nConnection: close, X-User",
		"option cookie": "Cookie: a=b\r\nConnection: cookie", "option host": "Connection: Host", "NUL in a value": "A: b\x00c", "DEL in a value": "A: \x7f",
		"escape in a value": "A: \x1b[2J", "second host": "Host: i", "host by fold": "A: b\r\n Host: i", "host by CR": "A: b\rHost: i",
		"empty name": ": x", "space in a name": "A B: c", "colon first": ":A: b",
	} {
		post("field: "+name, "Content-Length: 5", fields)
	}
	for name, line := range map[string]string{
		"two spaces": "GET  /p HTTP/1.1", "space before version": "GET /p  HTTP/1.1", "space behind": "GET /p HTTP/1.1 ", "tab": "GET\t/p HTTP/1.1",
		"tab in target": "GET /p\t/q HTTP/1.1", "form feed": "GET\x0c/p HTTP/1.1", "two targets": "GET /p /q HTTP/1.1", "0.9": "GET /p",
		"no version": "GET /p ", "1.2": "GET /p HTTP/1.2", "2.0": "GET /p HTTP/2.0", "0.9 named": "GET /p HTTP/0.9", "version 11": "GET /p HTTP/11",
		"version in lower case": "GET /p http/1.1", "long version": "GET /p HTTP/1.1HTTP/1.1", "space first": " GET /p HTTP/1.1", "bare CR": "GET /p\r HTTP/1.1",
		"NUL": "GET /p\x00 HTTP/1.1", "8-bit": "GET /\xe9 HTTP/1.1", "fragment": "GET /p#q HTTP/1.1", "fragment in query": "GET /p?a#b HTTP/1.1",
		"escaped slash": "GET /p%2fq HTTP/1.1", "escaped slash, dots": "GET /p/..%2fq HTTP/1.1", "escaped backslash": "GET /p%5cq HTTP/1.1", "escaped NUL": "GET /p%00.png HTTP/1.1",
		"over-long dots": "GET /%c0%ae%c0%ae/p HTTP/1.1", "over-long slash": "GET /p/..%e0%80%afq HTTP/1.1", "wide escapes": "GET /%u002e%u002e/p HTTP/1.1", "escaped dots, parameters": "GET /p/%2e%2e;/q HTTP/1.1", "no slash": "GET p HTTP/1.1", "asterisk": "GET * HTTP/1.1", "authority": "GET h:80 HTTP/1.1",
		"other host": "GET http://other/p HTTP/1.1", "host in upper case": "GET http://H/p HTTP/1.1", "user": "GET http://u@h/p HTTP/1.1", "another scheme": "GET https://h/p HTTP/1.1",
		"scheme alone": "GET http: HTTP/1.1", "no host": "GET http:///p HTTP/1.1", "port": "GET http://h:81/p HTTP/1.1", "file": "GET file:///etc/passwd HTTP/1.1",
		"method with brackets": "G[E]T /p HTTP/1.1", "method with NUL": "G\x00T /p HTTP/1.1", "method of spaces": "   /p HTTP/1.1", "long method": strings.Repeat("A", 200) + " /p HTTP/1.1",
		"CONNECT a path": "CONNECT /p HTTP/1.1", "CONNECT elsewhere": "CONNECT i:80 HTTP/1.1", "CONNECT no port": "CONNECT h HTTP/1.1", "HTTP/2 preface": "PRI * HTTP/2.0",
	} {
		all["line: "+name] = line + "\r\nHost: h\r\n\r\n" + smuggled
	}
	for name, host := range map[string]string{
		"none": "", "empty": "Host:\r\n", "twice": "Host: h\r\nHost: i\r\n", "twice, same": "Host: h\r\nhost: h\r\n", "list": "Host: h, i\r\n", "space": "Host: h i\r\n",
		"path": "Host: h/p\r\n", "query": "Host: h?a\r\n", "user": "Host: u@h\r\n", "backslash": "Host: h\\i\r\n", "escape": "Host: %68\r\n", "8-bit": "Host: h\xe9\r\n",
		"no port": "Host: h:\r\n", "bad port": "Host: h:80x\r\n", "two ports": "Host: h:80:81\r\n", "space before colon": "Host : h\r\n", "folded": "Host:\r\n h\r\n",
		"tab": "Host: h\ti\r\n", "NUL": "Host: h\x00\r\n", "fragment": "Host: h#i\r\n", "semicolon": "Host: h;i\r\n", "open bracket": "Host: [::1\r\n", "bare IPv6": "Host: ::1\r\n",
	} {
		all["host: "+name] = "GET /p HTTP/1.1\r\n" + host + "\r\n" + smuggled
	}
	for name, input := range map[string]string{
		"LF alone": "GET /p HTTP/1.1\nHost: h\n\n", "LF behind the line": "GET /p HTTP/1.1\nHost: h\r\n\r\n", "LF behind a field": "GET /p HTTP/1.1\r\nHost: h\n\r\n",
		"LF at the end": "GET /p HTTP/1.1\r\nHost: h\r\n\n", "CR alone": "GET /p HTTP/1.1\rHost: h\r\r", "CR CR LF": "GET /p HTTP/1.1\r\r\nHost: h\r\n\r\n",
		"LF first": "\nGET /p HTTP/1.1\r\nHost: h\r\n\r\n", "CR first": "\rGET /p HTTP/1.1\r\nHost: h\r\n\r\n", "empty lines": "\r\n\r\n\r\nGET /p HTTP/1.1\r\nHost: h\r\n\r\n",
		"fold first": "GET /p HTTP/1.1\r\n Host: h\r\n\r\n", "coding in 1.0": "POST /p HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"TLS": "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "PROXY": "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "NUL first": "\x00GET /p HTTP/1.1\r\nHost: h\r\n\r\n",
		"two lengths in 1.0": "POST /p HTTP/1.0\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
	} {
		all["bytes: "+name] = input + smuggled
	}
	return all
}

// HostileChunks are chunked bodies that two readers could cut differently (chunk
// sizes, extensions, line ends, trailers). What follows the first thing that is
// wrong may not go upstream.
func HostileChunks() map[string]string {
	all := map[string]string{}
	for name, chunks := range map[string]string{
		"0x": "0x5\r\nhello\r\n0\r\n\r\n", "sign": "+5\r\nhello\r\n0\r\n\r\n", "minus": "-1\r\n", "space behind the size": "5 \r\nhello\r\n0\r\n\r\n",
		"space before the size": " 5\r\nhello\r\n0\r\n\r\n", "tab behind the size": "5\t\r\nhello\r\n0\r\n\r\n", "empty size": "\r\nhello\r\n0\r\n\r\n", "letters": "5g\r\nhello\r\n0\r\n\r\n",
		"overflow": "10000000000000005\r\nhello\r\n0\r\n\r\n", "overflow, signed": "8000000000000005\r\nhello\r\n0\r\n\r\n", "many zeros": strings.Repeat("0", 40) + "5\r\nhello\r\n0\r\n\r\n",
		"fullwidth": "\xef\xbc\x95\r\nhello\r\n0\r\n\r\n", "underscore": "1_0\r\n0123456789abcdef\r\n0\r\n\r\n", "LF behind the size": "5\nhello\r\n0\r\n\r\n", "CR behind the size": "5\rhello\r\n0\r\n\r\n",
		"LF in an extension": "5;a\nhello\r\n0\r\n\r\n", "CR in an extension": "5;a\rb\r\nhello\r\n0\r\n\r\n", "LF in quotes": "5;a=\"\nx\"\r\nhello\r\n0\r\n\r\n", "open quotes": "5;a=\"\r\nhello\r\n0\r\n\r\n",
		"no name": "5;\r\nhello\r\n0\r\n\r\n", "no semicolon": "5 a=b\r\nhello\r\n0\r\n\r\n", "8-bit extension": "5;\xff\r\nhello\r\n0\r\n\r\n", "NUL extension": "5;a=\x00\r\nhello\r\n0\r\n\r\n",
		"data too long": "5\r\nhelloworld\r\n0\r\n\r\n", "data too short": "5\r\nhell\r\n0\r\n\r\n", "two bytes for CRLF": "5\r\nhelloXX0\r\n\r\n", "LF behind data": "5\r\nhello\n0\r\n\r\n", "CR behind data": "5\r\nhello\r0\r\n\r\n",
		"LF at the end": "5\r\nhello\r\n0\r\n\n", "LF behind the last size": "5\r\nhello\r\n0\n\r\n", "CR at the end": "5\r\nhello\r\n0\r\n\r\r\n",
		"trailer length": "0\r\nContent-Length: 30\r\n\r\n", "trailer coding": "0\r\nTransfer-Encoding: chunked\r\n\r\n", "trailer host": "0\r\nHost: i\r\n\r\n",
		"trailer folded": "0\r\nA: b\r\n c\r\n\r\n", "trailer without colon": "0\r\nabc\r\n\r\n", "trailer with LF": "0\r\nA: b\n\r\n", "trailer with CR": "0\r\nA: b\rC: d\r\n\r\n", "trailer with NUL": "0\r\nA: \x00\r\n\r\n",
		"trailer authorization": "0\r\nA: b\r\nAuthorization: x\r\n\r\n", "trailer cookie": "0\r\ncookie: a=b\r\n\r\n", "trailer forwarded": "0\r\nX_Forwarded_For: ::1\r\n\r\n",
		"CR LF in an extension": "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", "space in an extension": "5;a = b\r\nhello\r\n0\r\n\r\n", "LF CR behind the size": "5\n\rhello\r\n0\r\n\r\n",
		"extension of the last": "5\r\nhello\r\n0;\nA: b\r\n\r\n", "second size": "5\r\nhello\r\n-1\r\n", "second size, list": "5\r\nhello\r\n5,5\r\nhello\r\n0\r\n\r\n", "size of CR": "\r5\r\nhello\r\n0\r\n\r\n",
		"trailer connection": "0\r\nConnection: close\r\n\r\n", "trailer with space": "0\r\nA : b\r\n\r\n", "trailer underscore": "0\r\nContent_Length: 5\r\n\r\n",
	} {
		all["chunks: "+name] = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + smuggled
	}
	return all
}
