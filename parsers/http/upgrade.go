package http

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
)

// A connection that changes its protocol is one that is judged no more. So the
// wish is passed on only for protocols that are no other way to ask for what rules
// are about: not for HTTP, nor for TLS, under which HTTP would go on unseen. Other
// wishes are taken out of the head, and the request is served as what it is: a
// server may ignore them too (RFC 9110 section 7.8).
//
// So is that of a request with content which its server might not read: it has to be the
// last on its connection.
func (r *request) settleUpgrade() {
	r.switches = r.upgrade && r.upgradeOption && !r.settings && !r.http10 && !r.connect && !r.unexpected() && r.tunnels()
	if !r.switches && (r.upgrade || r.settings) {
		r.stripUpgrade()
	}
}

// tunnels reports whether every protocol of the Upgrade fields may be spoken
// unseen.
func (r *request) tunnels() bool {
	n := 0
	for i := range r.Headers {
		if !equalFold(r.Headers[i].Name, "upgrade") {
			continue
		}
		for value := r.Headers[i].Value; len(value) > 0; {
			var protocol []byte
			protocol, value = item(value)
			name, _, _ := bytes.Cut(protocol, slash)
			if !all(name, inToken) {
				return false
			}
			for _, http := range [...]string{"", "http", "h2", "h2c", "h3", "tls", "ssl"} {
				if equalFold(name, http) {
					return false
				}
			}
			n++
		}
	}
	return n > 0
}

var slash = []byte{'/'}

// item takes the first element of a list off its start.
func item(list []byte) (first, rest []byte) {
	if i := bytes.IndexByte(list, ','); i >= 0 {
		return trim(list[:i]), list[i+1:]
	}
	return trim(list), nil
}

// stripUpgrade takes the wish out of the fields: what is judged and goes upstream
// has never had it.
func (r *request) stripUpgrade() {
	kept := r.Headers[:0]
	for _, h := range r.Headers {
		if !equalFold(h.Name, "upgrade") && !equalFold(h.Name, "http2-settings") {
			kept = append(kept, h)
		}
	}
	r.Headers = kept
	r.dropOptions("upgrade", "http2-settings")
}

// dropOptions takes options out of the Connection fields.
func (r *request) dropOptions(a, b string) {
	r.anew = true
	kept := r.Headers[:0]
	for _, h := range r.Headers {
		if equalFold(h.Name, "connection") {
			from := len(r.options)
			for value := h.Value; len(value) > 0; {
				var o []byte
				if o, value = item(value); len(o) == 0 || equalFold(o, a) || equalFold(o, b) {
					continue
				}
				if len(r.options) > from {
					r.options = append(r.options, ", "...)
				}
				r.options = append(r.options, o...)
			}
			if h.Value = r.options[from:len(r.options):len(r.options)]; len(h.Value) == 0 {
				continue
			}
		}
		kept = append(kept, h)
	}
	r.Headers = kept
}

// offer is what a client offered to switch to, kept for the answer.
type offer struct {
	protocols []byte // the values of Upgrade
	websocket bool
	key       [28]byte // what the answer to a WebSocket's key must be
	keyed     bool     // there was one
}

// keep remembers the offer of a request.
func (o *offer) keep(r *request) {
	*o = offer{protocols: o.protocols[:0]}
	for _, h := range r.Headers {
		switch {
		case equalFold(h.Name, "upgrade"):
			o.protocols = append(append(o.protocols, h.Value...), ',')
		case equalFold(h.Name, "sec-websocket-key"):
			sum := sha1.Sum(append(h.Value[:len(h.Value):len(h.Value)], "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
			base64.StdEncoding.Encode(o.key[:], sum[:])
			o.keyed = true
		}
	}
	o.websocket = o.has([]byte("websocket"))
}

func (o *offer) has(protocol []byte) bool {
	for rest := o.protocols; len(rest) > 0; {
		var p []byte
		if p, rest = item(rest); len(p) > 0 && bytes.EqualFold(p, protocol) {
			return true
		}
	}
	return false
}

// takenBy reports whether a 101 takes the offer: it names one of its protocols,
// and answers the key of a WebSocket (RFC 6455 section 4.2.2). A server that only
// repeats a status that somebody made it say does not.
func (o *offer) takenBy(head []byte, lines []int) bool {
	named, answered := false, !o.websocket
	start := lines[0]
	for _, end := range lines[1:] {
		name, value, err := field(head[start : end-2])
		start = end
		switch {
		case err != nil:
			return false
		case equalFold(name, "upgrade"):
			if named || !o.has(value) {
				return false
			}
			named = true
		case equalFold(name, "sec-websocket-accept"):
			answered = answered || o.keyed && bytes.Equal(value, o.key[:])
		}
	}
	return named && answered
}
