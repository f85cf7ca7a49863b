package proxy

import (
	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/http"
	"github.com/headgate/headgate/parsers/kafka"
	"github.com/headgate/headgate/policy"
)

// newSession is the default of Config.NewSession.
func newSession(p policy.Protocol, hooks parsers.Hooks) parsers.Session {
	switch p {
	case policy.ProtocolHTTP, policy.ProtocolGRPC:
		return http.New(hooks, http.Limits{})
	case policy.ProtocolKafka:
		if c, ok := hooks.(*conn); ok {
			return kafka.New(c, c.topics())
		}
	}
	return nil
}
