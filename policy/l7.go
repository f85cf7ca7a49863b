package policy

// L7Set is the application rules that apply to the connections of one subject,
// direction, peer and port. It is plain data, so that it can be sent to a
// backend; CompileL7 makes it answer.
type L7Set struct {
	ID       SetID
	Protocol Protocol
	HTTP     []HTTPRule
}

// HTTPRule matches requests. Empty fields match everything; Method, Path and
// Host are RE2 expressions that must match the whole value (Path with its
// query, Host with its port).
type HTTPRule struct {
	Method  string
	Path    string
	Host    string
	Headers []HeaderRule // all must match
	Ref     Ref
}

// HeaderRule wants a header to be present and, if Value is not empty, its value
// to be exactly that. Names compare without case. A header that was sent several
// times has one value, all of them joined with commas: otherwise a second value
// that the server prefers would pass with the first.
type HeaderRule struct {
	Name  string
	Value string
}

// L7Table is every L7 set that a Table points to.
type L7Table map[SetID]*L7Set
