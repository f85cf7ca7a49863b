package verdict

import (
	"errors"
	"fmt"

	"github.com/headgate/headgate/policy"
)

// Verdicts as answers have them.
const (
	Allowed = "allowed"
	Denied  = "denied"
)

// Answer is what is said of a question.
type Answer struct {
	ID      string `json:"id"`
	Verdict string `json:"verdict"`
	L7      bool   `json:"l7"`   // an L7 rule set applies to the connection
	Rule    string `json:"rule"` // empty: none decided
	Reason  string `json:"reason"`
	Sides   []Side `json:"-"`
}

// Side is what the policy of one end says.
type Side struct {
	Direction policy.Direction
	Subject   string // whose policy it is
	Peer      string
	Managed   bool // policies apply to the subject
	Allowed   bool
	L7        bool
	Rule      policy.Ref
	Reason    string
	Nearest   policy.Ref // the rule that came nearest to allow it
	Changes   []string   // what would have allowed it
}

// Decide answers a question. Both ends have a say unless the question is about
// one: what either denies is denied.
func (j *Judge) Decide(q *Question) (Answer, error) { return j.answer(q, false) }

// Explain is Decide, and says of what is denied what would have allowed it.
func (j *Judge) Explain(q *Question) (Answer, error) { return j.answer(q, true) }

func (j *Judge) answer(q *Question, explain bool) (Answer, error) {
	a := Answer{ID: q.ID}
	from, err := j.party(q.From)
	if err != nil {
		return a, fmt.Errorf("read from: %w", err)
	}
	to, err := j.party(q.To)
	if err != nil {
		return a, fmt.Errorf("read to: %w", err)
	}
	f, err := readFlow(q, to)
	if err != nil {
		return a, err
	}
	var request policy.Request
	if q.L7 != nil {
		if request, err = q.L7.request(j.normal); err != nil && !errors.Is(err, errRefused) {
			return a, err
		}
	}
	asked := &asked{flow: f, sni: q.SNI, request: request, refused: err, explain: explain}
	if q.Direction != "ingress" {
		if q.Direction != "" && q.Direction != "egress" {
			return a, fmt.Errorf("%q is no direction; write ingress or egress, or leave it out for both", q.Direction)
		}
		side, err := j.side(policy.Egress, from, to, asked)
		if err != nil {
			return a, err
		}
		a.Sides = append(a.Sides, side)
	}
	if q.Direction != "egress" {
		side, err := j.side(policy.Ingress, to, from, asked)
		if err != nil {
			return a, err
		}
		a.Sides = append(a.Sides, side)
	}
	a.sum()
	return a, nil
}

// sum joins what the sides say. Of several that allow, one that a rule stands
// behind is named, the destination's before the source's.
func (a *Answer) sum() {
	a.Verdict = Allowed
	var say *Side
	for i := range a.Sides {
		s := &a.Sides[i]
		a.L7 = a.L7 || s.L7
		switch {
		case !s.Allowed && a.Verdict == Allowed:
			a.Verdict, say = Denied, s
		case a.Verdict == Denied:
		case say == nil || s.Rule != (policy.Ref{}) || say.Rule == (policy.Ref{}):
			say = s
		}
	}
	a.Rule, a.Reason = say.Rule.String(), say.Direction.String()+": "+say.Reason
}

// asked is a question, read.
type asked struct {
	flow
	sni     *string
	request policy.Request // nil: only the connection is asked about
	refused error          // the request is one that no proxy passes on
	explain bool
}

// side asks the policy of one end.
func (j *Judge) side(dir policy.Direction, subject, peer *party, q *asked) (Side, error) {
	s := Side{Direction: dir, Subject: subject.name, Peer: peer.name, Managed: subject.subject != nil}
	switch {
	case subject == peer && s.Managed:
		s.Allowed, s.Reason = true, subject.name+" reaches itself, which no policy can block"
		return s, nil
	case !s.Managed:
		s.Allowed, s.Reason = true, subject.name+" is no endpoint, so no policy is for it"
		return s, nil
	}
	if err := j.consult(&s, j.resolve(subject), subject, peer, q); err != nil || !s.Allowed || !j.audits {
		return s, err
	}
	audit := Side{Direction: dir, Subject: subject.name, Peer: peer.name}
	if err := j.consult(&audit, j.resolveAudit(subject), subject, peer, q); err != nil {
		return s, err
	}
	if !audit.Allowed {
		s.Reason += "; a policy in audit mode would deny it"
	}
	return s, nil
}

// consult looks the question up in the policy of the subject.
func (j *Judge) consult(s *Side, r *resolved, subject, peer *party, q *asked) error {
	dir := s.Direction
	e := r.table.Lookup(peer.id, dir, q.proto, q.port)
	if e.Rule != 0 {
		s.Rule = r.table.Rules[e.Rule-1]
	}
	switch {
	case e.Verdict == policy.Redirect:
		s.Allowed, s.L7 = true, true
		return j.judgeL7(s, r.sets[e.Set], q)
	case e.Verdict == policy.Allow && e.Rule == 0:
		s.Allowed, s.Reason = true, j.whyOpen(dir, subject)
	case e.Verdict == policy.Allow:
		s.Allowed, s.Reason = true, "the rule allows it, whatever is in it"
	case e.Rule != 0:
		s.Reason = "the rule denies it, whatever others allow"
		s.Changes = []string{"narrow or delete the deny rule " + s.Rule.String()}
	default:
		s.Reason = "no rule allows it, and what no rule allows is denied: " + j.whyClosed(dir, subject)
		if q.explain {
			j.nearest(s, subject, peer, q)
		}
	}
	return nil
}

func (j *Judge) whyOpen(dir policy.Direction, p *party) string {
	if j.enforcement == policy.EnforcementNever {
		return "policies are not enforced"
	}
	return fmt.Sprintf("no policy makes %s of %s deny by default", dir, p.name)
}

func (j *Judge) whyClosed(dir policy.Direction, p *party) string {
	for i := range j.rules {
		r := &j.rules[i]
		if r.DefaultDeny && r.Mode == policy.ModeEnforce && j.concerns(r, dir, p) {
			return r.Ref.Policy + " selects " + p.name
		}
	}
	return "enforcement is always"
}

// concerns reports whether a rule is for a subject, in a direction.
func (j *Judge) concerns(r *policy.Rule, dir policy.Direction, p *party) bool {
	return r.Direction == dir && r.Node == p.subject.Node && r.Subject.Matches(p.subject.Labels)
}
