package http

// Refusal is why input was refused: what Hooks.Malformed and errors from Feed
// hold. Status is what the client is told if it can still be told something; 0:
// it would not understand.
type Refusal struct {
	Status int
	Reason string
}

func (r *Refusal) Error() string { return "http: " + r.Reason }

// Refused requests.
var (
	ErrLineEnd       = &Refusal{400, "line does not end in CRLF"}
	ErrEmptyLines    = &Refusal{400, "more than one empty line before a request"}
	ErrMethod        = &Refusal{400, "method is not a token"}
	ErrRequestLine   = &Refusal{400, "malformed request line"}
	ErrVersion       = &Refusal{400, "version is neither HTTP/1.0 nor HTTP/1.1"}
	ErrNotHTTP       = &Refusal{0, "first line is not HTTP's"}
	ErrTarget        = &Refusal{400, "malformed request target"}
	ErrFragment      = &Refusal{400, "fragment in request target"}
	ErrAuthority     = &Refusal{400, "authority of the target is not the Host"}
	ErrEscapedSlash  = &Refusal{400, "escaped slash, backslash or NUL in path"}
	ErrWideEscape    = &Refusal{400, "escape of the kind %u002e in path"}
	ErrOverlong      = &Refusal{400, "escapes of over-long UTF-8 in path"}
	ErrEscapedDots   = &Refusal{400, "escaped dot segment with parameters in path"}
	ErrFolded        = &Refusal{400, "folded field line"}
	ErrFieldName     = &Refusal{400, "field name is not a token"}
	ErrFieldValue    = &Refusal{400, "control byte in field value"}
	ErrHostMissing   = &Refusal{400, "no Host"}
	ErrHostRepeated  = &Refusal{400, "more than one Host"}
	ErrHost          = &Refusal{400, "malformed Host"}
	ErrLength        = &Refusal{400, "malformed Content-Length"}
	ErrLengthTwice   = &Refusal{400, "more than one Content-Length"}
	ErrCoding        = &Refusal{400, "Transfer-Encoding is not exactly chunked"}
	ErrCodingVersion = &Refusal{400, "Transfer-Encoding in HTTP/1.0"}
	ErrBothFramings  = &Refusal{400, "both Content-Length and Transfer-Encoding"}
	ErrUnderscore    = &Refusal{400, "framing field written with an underscore"}
	ErrOption        = &Refusal{400, "Connection names a field that is judged"}
	ErrTrace         = &Refusal{400, "TRACE with content"}
	ErrConnect       = &Refusal{400, "CONNECT with content"}
	ErrChunk         = &Refusal{400, "malformed chunk"}
	ErrTrailer       = &Refusal{400, "field of framing or routing in trailers"}
	ErrTruncated     = &Refusal{400, "input ends inside a message"}
	ErrLineLong      = &Refusal{414, "request line too long"}
	ErrExpect        = &Refusal{417, "Expect is not 100-continue"}
	ErrHeadLong      = &Refusal{431, "head too long"}
	ErrFieldsMany    = &Refusal{431, "too many fields"}
	ErrPipelined     = &Refusal{503, "too many requests without an answer"}
)

// Refused responses; the client is told nothing.
var (
	ErrUnsolicited = &Refusal{502, "response without a request"}
	ErrStatusLine  = &Refusal{502, "malformed status line"}
	ErrSwitched    = &Refusal{502, "101 that takes no offer of the client"}
)

// reasonPhrase is what stands behind the status of an answer made here.
func reasonPhrase(status int) string {
	if phrase, ok := phrases[status]; ok {
		return phrase
	}
	return "Error"
}

// phrases is read only. A policy may choose its own status for denials.
var phrases = map[int]string{
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
	409: "Conflict", 410: "Gone", 414: "URI Too Long", 417: "Expectation Failed", 418: "I'm a teapot",
	421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked", 424: "Failed Dependency", 425: "Too Early",
	426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
	431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported", 511: "Network Authentication Required",
}
