package proxy

import (
	"fmt"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// judged is an L7 set in force.
type judged struct {
	id    policy.SetID
	judge Judge
	err   error // why it denies everything
}

// snapshot is every L7 set in force. It is never changed, only replaced.
type snapshot struct {
	revision uint64
	sets     map[redirect.SetNumber]judged
}

// next compiles the snapshot that replaces s. Sets that s has are taken over:
// equal ids are equal rules. s may be nil.
func (s *snapshot) next(wanted redirect.Snapshot, compile func(*policy.L7Set) (Judge, error)) (*snapshot, error) {
	n := &snapshot{revision: wanted.Revision, sets: make(map[redirect.SetNumber]judged, len(wanted.Sets))}
	for id, w := range wanted.Sets {
		if w.Number == 0 || w.Set == nil || w.Number.Protocol() != w.Set.Protocol {
			return nil, fmt.Errorf("take set %x: number %#x does not fit it", id, uint32(w.Number))
		}
		if _, twice := n.sets[w.Number]; twice {
			return nil, fmt.Errorf("take set %x: number %#x is another set's too", id, uint32(w.Number))
		}
		if s != nil {
			if old, ok := s.sets[w.Number]; ok && old.id == id && old.err == nil {
				n.sets[w.Number] = old
				continue
			}
		}
		n.sets[w.Number] = compileOne(id, w.Set, compile)
	}
	return n, nil
}

// compileOne never fails: a set that cannot be compiled denies everything.
func compileOne(id policy.SetID, set *policy.L7Set, compile func(*policy.L7Set) (Judge, error)) (j judged) {
	j.id = id
	defer func() {
		if p := recover(); p != nil {
			j.judge, j.err = denyAll{"the rules could not be compiled"}, fmt.Errorf("compile set: %v", p)
		}
	}()
	j.judge, j.err = compile(set)
	if j.err != nil {
		j.judge = denyAll{"the rules could not be compiled: " + j.err.Error()}
	}
	return j
}

// denyAll stands in for a set that could not be compiled.
type denyAll struct{ reason string }

func (d denyAll) Decide(policy.Request) policy.Decision { return policy.Decision{Reason: d.reason} }

// compileL7 is the default of Config.Compile.
func compileL7(set *policy.L7Set) (Judge, error) {
	j, err := policy.CompileL7(set)
	if err != nil {
		return nil, err
	}
	return j, nil
}

// route is the L7 sets that apply to a connection.
type route struct{ egress, ingress redirect.SetNumber }

// known reports whether every set of the route is in force.
func (s *snapshot) known(r route) bool {
	for _, n := range [2]redirect.SetNumber{r.egress, r.ingress} {
		if _, ok := s.sets[n]; n != 0 && !ok {
			return false
		}
	}
	return true
}

// decide judges a request of the route: egress first, then ingress; both must
// allow. The direction is that of the set that decided.
func (s *snapshot) decide(r route, request policy.Request) (policy.Decision, policy.Direction) {
	decision, direction := policy.Decision{Verdict: policy.Allow}, policy.Ingress
	if r.egress != 0 {
		direction = policy.Egress
		decision = s.decideOne(r.egress, request)
		if decision.Verdict != policy.Allow {
			return decision, direction
		}
	}
	if r.ingress != 0 {
		direction = policy.Ingress
		decision = s.decideOne(r.ingress, request)
	}
	return decision, direction
}

func (s *snapshot) decideOne(n redirect.SetNumber, request policy.Request) policy.Decision {
	set, ok := s.sets[n]
	if !ok {
		return policy.Decision{Reason: fmt.Sprintf("L7 set %#x is not in force here", uint32(n))}
	}
	return set.judge.Decide(request)
}

// protocol that the connections of a route speak. Two sets must agree; gRPC is
// read as HTTP.
func (r route) protocol() (policy.Protocol, bool) {
	a, b := r.egress.Protocol(), r.ingress.Protocol()
	if a == policy.ProtocolGRPC {
		a = policy.ProtocolHTTP
	}
	if b == policy.ProtocolGRPC {
		b = policy.ProtocolHTTP
	}
	switch {
	case r.egress == 0:
		return b, true
	case r.ingress == 0 || a == b:
		return a, true
	}
	return policy.ProtocolNone, false
}
