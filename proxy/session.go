package proxy

import (
	"strings"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/http"
	"github.com/headgate/headgate/parsers/http2"
	"github.com/headgate/headgate/parsers/kafka"
	"github.com/headgate/headgate/parsers/tls"
	"github.com/headgate/headgate/policy"
)

// newSession is the default of Config.NewSession.
func newSession(p policy.Protocol, hooks parsers.Hooks) parsers.Session {
	switch p {
	case policy.ProtocolHTTP, policy.ProtocolGRPC:
		return &undecided{hooks: hooks}
	case policy.ProtocolDNS:
		if c, ok := hooks.(*conn); ok {
			return newDNSSession(c)
		}
	case policy.ProtocolKafka:
		if c, ok := hooks.(*conn); ok {
			return kafka.New(c, c.topics())
		}
	case policy.ProtocolTLS:
		c, ok := hooks.(*conn)
		switch {
		case !ok:
		case c.ending == nil:
			return tls.New(c)
		default: // what is in it is not read
			return &opaque{}
		}
	}
	return nil
}

// undecided is the session of a connection that carries HTTP of a version not yet known:
// the client's first bytes tell. Then the session of that version takes its place,
// in conn too.
type undecided struct {
	hooks  parsers.Hooks
	chosen parsers.Session
}

// chooser is told which session an undecided one became.
type chooser interface {
	choose(s parsers.Session, version string)
	agreed() string // by ALPN; empty: nothing
}

// Feed implements parsers.Session.
func (w *undecided) Feed(from parsers.Side, data []byte, eof bool) ([]parsers.Step, error) {
	if w.chosen == nil && !w.decide(from, data, eof) {
		return nil, nil
	}
	return w.chosen.Feed(from, data, eof)
}

// decide reports whether the version is known. A server that speaks first speaks
// neither. What TLS agreed on holds, whatever the bytes look like: the server reads
// them so.
func (w *undecided) decide(from parsers.Side, data []byte, eof bool) bool {
	version := "HTTP/1.1"
	var agreed string
	if c, ok := w.hooks.(chooser); ok {
		agreed = c.agreed()
	}
	switch {
	case agreed == alpnHTTP2:
		version = "HTTP/2"
	case agreed == "" && from == parsers.Client:
		n := min(len(data), len(http2.Preface))
		switch {
		case !strings.HasPrefix(http2.Preface, string(data[:n])):
		case n == len(http2.Preface):
			version = "HTTP/2"
		case !eof:
			return false
		}
	}
	if version == "HTTP/2" {
		w.chosen = http2.New(w.hooks, http2.Limits{})
	} else {
		w.chosen = http.New(w.hooks, http.Limits{})
	}
	if c, ok := w.hooks.(chooser); ok {
		c.choose(w.chosen, version)
	}
	return true
}

// Phase implements parsers.Session.
func (w *undecided) Phase() parsers.Phase {
	if w.chosen == nil {
		return parsers.Head
	}
	return w.chosen.Phase()
}

// choose implements chooser.
func (c *conn) choose(s parsers.Session, version string) {
	c.session, c.protocol = s, version
	if c.lasting() != nil { // nothing was judged yet, so nothing is to be judged again now
		c.p.mu.Lock()
		c.p.standing[c] = struct{}{}
		c.p.mu.Unlock()
	}
}
