package proxy

import (
	"fmt"
	"maps"
	"strings"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// judged is an L7 set in force.
type judged struct {
	id      policy.SetID
	judge   Judge
	err     error // why it denies everything
	secrets map[policy.SecretRef]string
	ends    *ends // nil: what comes is plain text
	// observed: it allows also what cannot be read. audited: who would not have is
	// heard. names: server names are judged.
	observed, audited, names bool
}

// snapshot is every L7 set in force. It is never changed, only replaced.
type snapshot struct {
	revision uint64
	round    uint64 // of what it allows, in the datapath
	sets     map[redirect.SetNumber]judged
	audit    bool // nothing is denied
}

// next compiles the snapshot that replaces s. Sets that s has are taken over if
// the secrets that they refer to are the same: equal ids are equal rules. s may be
// nil.
func (s *snapshot) next(wanted redirect.Snapshot, compile func(*policy.L7Set) (Judge, error)) (*snapshot, error) {
	n := &snapshot{revision: wanted.Revision, audit: wanted.Audit, sets: make(map[redirect.SetNumber]judged, len(wanted.Sets))}
	for id, w := range wanted.Sets {
		if w.Number == 0 || w.Set == nil || w.Number.Protocol() != w.Set.Protocol {
			return nil, fmt.Errorf("take set %x: number %#x does not fit it", id, uint32(w.Number))
		}
		if _, twice := n.sets[w.Number]; twice {
			return nil, fmt.Errorf("take set %x: number %#x is another set's too", id, uint32(w.Number))
		}
		secrets := w.Set.Secrets(wanted.Secrets)
		if s != nil {
			if old, ok := s.sets[w.Number]; ok && old.id == id && old.err == nil && maps.Equal(old.secrets, secrets) {
				n.sets[w.Number] = old
				continue
			}
		}
		j := compileOne(id, w.Set.Reveal(secrets), compile)
		j.secrets = secrets
		if j.ends = newEnds(w.Set.Ends, secrets); j.ends != nil && j.ends.err != nil && j.err == nil {
			j.judge, j.err = denyAll{j.ends.err.Error()}, j.ends.err
		}
		n.sets[w.Number] = j
	}
	return n, nil
}

// compileOne never fails: a set that cannot be compiled denies everything.
func compileOne(id policy.SetID, set *policy.L7Set, compile func(*policy.L7Set) (Judge, error)) (j judged) {
	j.id, j.observed, j.audited, j.names = id, set.Observed, set.Audit != nil, set.JudgesNames()
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

// compile is the default of Config.Compile.
func compile(set *policy.L7Set) (Judge, error) { return policy.CompileSet(set) }

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

// decide judges a request of the route: egress first, then ingress, which is asked
// about the request as egress lets it go on; both must allow. The direction is that
// of the set that decided, or of the first that would have denied.
func (s *snapshot) decide(r route, request policy.Request) (policy.Decision, policy.Direction) {
	if _, hello := request.(*policy.TLSRequest); hello {
		r = s.naming(r)
	}
	if r.egress == 0 && r.ingress == 0 {
		return policy.Decision{Verdict: policy.Allow}, policy.Ingress
	}
	if r.egress == 0 {
		return s.decideOne(r.ingress, request), policy.Ingress
	}
	egress := s.decideOne(r.egress, request)
	if r.ingress == 0 || egress.Verdict != policy.Allow {
		return egress, policy.Egress
	}
	if h, ok := request.(*policy.HTTPRequest); ok && egress.Edited {
		edited := *h
		edited.Headers = egress.Headers
		request = &edited
	}
	ingress := s.decideOne(r.ingress, request)
	if ingress.Verdict != policy.Allow {
		return ingress, policy.Ingress
	}
	if egress.Edited && !ingress.Edited {
		ingress.Edited, ingress.Headers = true, egress.Headers
	}
	if egress.Reason != "" {
		ingress.Reason = strings.TrimSuffix(egress.Reason+"; "+ingress.Reason, "; ")
	}
	if egress.Audit != nil {
		ingress.Audit = egress.Audit
		return ingress, policy.Egress
	}
	return ingress, policy.Ingress
}

// naming is a route without the sets to which the server name does not matter.
func (s *snapshot) naming(r route) route {
	for _, n := range [2]*redirect.SetNumber{&r.egress, &r.ingress} {
		if set, ok := s.sets[*n]; ok && !set.names && set.err == nil {
			*n = 0
		}
	}
	return r
}

func (s *snapshot) decideOne(n redirect.SetNumber, request policy.Request) policy.Decision {
	set, ok := s.sets[n]
	if !ok {
		return policy.Decision{Reason: fmt.Sprintf("L7 set %#x is not in force here", uint32(n))}
	}
	d := set.judge.Decide(request)
	if s.audit && d.Verdict != policy.Allow {
		denial := d
		return policy.Decision{Verdict: policy.Allow, Audit: &denial}
	}
	return d
}

// passes reports whether what cannot be read goes on all the same, because no
// policy that enforces has a say in it; audited, whether it would not have, had
// they all.
func (s *snapshot) passes(r route) (pass, audited bool) {
	pass, audited = true, s.audit
	for _, n := range [2]redirect.SetNumber{r.egress, r.ingress} {
		set, ok := s.sets[n]
		pass = pass && (n == 0 || ok && set.observed)
		audited = audited || set.audited
	}
	return pass || s.audit, audited
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
