package policy

import "bytes"

// decideHTTP asks the HTTP rules, and for a request that is a gRPC call those
// for gRPC too.
func (j *rulesJudge) decideHTTP(r *HTTPRequest) Decision {
	d := j.http.Decide(r)
	if d.Verdict == Allow || len(j.grpc) == 0 {
		return d
	}
	call, ok := callOf(r)
	if !ok {
		if !j.hasHTTP {
			return Decision{Nearest: j.grpc[0].Ref, Reason: "it is no gRPC call: those are POST /Service/Method of application/grpc"}
		}
		return d
	}
	return j.decideCall(call, d)
}

// decideGRPC asks the rules for gRPC, and the HTTP rules about the request that
// carries the call.
func (j *rulesJudge) decideGRPC(r *GRPCRequest) Decision {
	d := j.http.Decide(&HTTPRequest{Method: []byte("POST"), Path: pathOf(r), Host: r.Host, Headers: withContentType(r.Headers)})
	if d.Verdict == Allow {
		return d
	}
	return j.decideCall(r, d)
}

// decideCall asks the rules for gRPC; otherwise is what the HTTP rules say.
func (j *rulesJudge) decideCall(r *GRPCRequest, otherwise Decision) Decision {
	for i := range j.grpc {
		if j.grpc[i].match(r) {
			return Decision{Verdict: Allow, Rule: j.grpc[i].Ref}
		}
	}
	for i := range j.grpc {
		if rule := &j.grpc[i]; rule.Service != "" && glob(rule.Service, string(r.Service), 0) {
			return Decision{Nearest: rule.Ref, Reason: "method " + show(r.Method) + " does not match " + show([]byte(rule.Method))}
		}
	}
	if len(j.grpc) > 0 && otherwise.Nearest == (Ref{}) {
		return Decision{Nearest: j.grpc[0].Ref, Reason: "call " + show(pathOf(r)) + " does not match " + show([]byte(j.grpc[0].String()))}
	}
	return otherwise
}

func (g *GRPCRule) match(r *GRPCRequest) bool {
	return (g.Service == "" || glob(g.Service, string(r.Service), 0)) && (g.Method == "" || glob(g.Method, string(r.Method), 0))
}

func (g *GRPCRule) String() string {
	text := func(s string) string {
		if s == "" {
			return "*"
		}
		return s
	}
	return "/" + text(g.Service) + "/" + text(g.Method)
}

func pathOf(r *GRPCRequest) []byte {
	return bytes.Join([][]byte{nil, r.Service, r.Method}, []byte{'/'})
}

var (
	contentType = []byte("content-type")
	grpcType    = []byte("application/grpc")
)

func withContentType(headers []HTTPHeader) []HTTPHeader {
	for i := range headers {
		if bytes.EqualFold(headers[i].Name, contentType) {
			return headers
		}
	}
	return append(headers[:len(headers):len(headers)], HTTPHeader{contentType, grpcType})
}

// callOf returns the gRPC call that a request is.
func callOf(r *HTTPRequest) (*GRPCRequest, bool) {
	if string(r.Method) != "POST" || len(r.Path) == 0 || r.Path[0] != '/' {
		return nil, false
	}
	types := 0
	for i := range r.Headers {
		if bytes.EqualFold(r.Headers[i].Name, contentType) {
			if types++; !IsCall(r.Headers[i].Value) {
				return nil, false
			}
		}
	}
	service, method, found := bytes.Cut(r.Path[1:], []byte{'/'})
	if types != 1 || !found || len(service) == 0 || len(method) == 0 || bytes.ContainsAny(method, "/?#") {
		return nil, false
	}
	return &GRPCRequest{Service: service, Method: method, Host: r.Host, Headers: r.Headers}, true
}

// IsCall reports whether a content type is that of gRPC: "application/grpc", with "+proto" or "; ..." behind it.
func IsCall(value []byte) bool {
	if len(value) < len(grpcType) || !bytes.EqualFold(value[:len(grpcType)], grpcType) {
		return false
	}
	rest := value[len(grpcType):]
	return len(rest) == 0 || rest[0] == '+' || rest[0] == ';' || rest[0] == ' '
}
