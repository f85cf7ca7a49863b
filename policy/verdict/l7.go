package verdict

import (
	"fmt"

	"github.com/headgate/headgate/policy"
)

// judgeL7 asks an L7 set: of the server name where it has rules for that, and
// of the request.
func (j *Judge) judgeL7(s *Side, set *policy.L7Set, q *asked) error {
	judge, err := j.compile(set)
	if err != nil {
		return fmt.Errorf("compile the rules of %s: %w", s.Subject, err)
	}
	s.Reason = "the rule allows the connection, and its requests are judged one by one"
	if q.request == nil && q.sni == nil && q.refused == nil {
		return nil
	}
	if q.refused != nil && set.Protocol != policy.ProtocolTLS {
		s.Allowed, s.Rule, s.Reason = false, policy.Ref{}, q.refused.Error()
		return nil
	}
	// Handshakes are judged before what is in them. One of which no name is
	// known gave none.
	if set.Protocol == policy.ProtocolTLS || len(set.TLS) > 0 {
		hello := &policy.TLSRequest{}
		if q.sni != nil {
			hello.ServerName = *q.sni
		}
		j.ask(s, judge, set, hello, q.explain)
		if !s.Allowed || set.Protocol == policy.ProtocolTLS {
			return nil
		}
	}
	if q.request != nil {
		j.ask(s, judge, set, q.request, q.explain)
	}
	return nil
}

func (j *Judge) ask(s *Side, judge policy.Judge, set *policy.L7Set, r policy.Request, explain bool) {
	d := judge.Decide(r)
	s.Rule = d.Rule
	if d.Verdict == policy.Allow {
		s.Reason = "the rule allows the request"
		return
	}
	s.Allowed, s.Nearest = false, d.Nearest
	switch {
	case d.Rule != (policy.Ref{}):
		s.Reason = d.Reason
		s.Changes = []string{"narrow or delete the deny rule " + d.Rule.String()}
	case d.Nearest != (policy.Ref{}):
		s.Reason = fmt.Sprintf("no rule allows the request; nearest is %s: %s", d.Nearest, d.Reason)
	default:
		s.Reason = "no rule allows the request: " + d.Reason
	}
	if explain && d.Nearest != (policy.Ref{}) {
		s.Changes = changes(set, d.Nearest, r)
	}
}
