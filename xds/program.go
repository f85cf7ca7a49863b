package xds

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/policy"
)

// program is an L7 set in Envoy's words.
type program struct {
	// What is enforced. No deny: no rule denies. Allow is what a request must be, and
	// connect what one for a tunnel must be; nil: whatever it is.
	deny, allow, connect *rbacv3.RBAC
	// The same of policies that audit, which is only reported.
	shadowDeny, shadowAllow, shadowConnect *rbacv3.RBAC

	edits    []any          // of rules, for the script
	tests    []test         // by which the script knows what they match
	response map[string]any // to what is denied, for the script
	raw      bool           // what is not HTTP passes unread
	names    nameRules      // of servers; nil: whatever

	rules []string      // names of all that is in the set, by which one can be left out
	kept  []string      // of those, if some are left out
	set   *policy.L7Set // with its secrets
	audit bool
	// What it was made with besides: how many rules were left out, and which secrets.
	left    int
	secrets map[policy.SecretRef]string
	judge   policy.Judge  // tells why, and judges what lasts again
	judged  *policy.L7Set // what that judges by

	cautiousOnce  sync.Once
	cautiousJudge policy.Judge

	text string // equal programs have equal texts
}

// closed is what stands in for a set that is not there, or cannot be judged.
func closed() *program { return (&program{allow: denyAll(), connect: denyAll()}).seal() }

// options of a translation.
type options struct {
	audit bool                   // nothing is denied
	keep  func(rule string) bool // nil: all
}

func (o options) keeps(name string) bool { return o.keep == nil || o.keep(name) }

// kept is the set without the rules that allow and are left out.
func (o options) kept(set *policy.L7Set) *policy.L7Set {
	if o.keep == nil {
		return set
	}
	out := *set
	out.HTTP, out.GRPC = nil, nil
	for i, r := range set.HTTP {
		if o.keeps(ruleName("allow", i, r.Ref)) {
			out.HTTP = append(out.HTTP, r)
		}
	}
	for i, r := range set.GRPC {
		if o.keeps(ruleName("allow", len(set.HTTP)+i, r.Ref)) {
			out.GRPC = append(out.GRPC, r)
		}
	}
	return &out
}

// programOf translates a set whose secrets are revealed. A rule that is not kept allows
// nothing, or if it denies, denies everything.
func programOf(set *policy.L7Set, o options) (*program, error) {
	kept := o.kept(set)
	judge, err := policy.CompileSet(kept)
	if err != nil {
		return nil, err
	}
	p := &program{set: set, judged: kept, audit: o.audit, judge: judge, raw: set.Observed || o.audit}
	if !p.raw {
		p.names = namesOf(set)
	}
	switch set.Protocol {
	case policy.ProtocolHTTP:
	case policy.ProtocolTLS:
		return p.seal(), nil
	default:
		return nil, fmt.Errorf("rules for %s are not Envoy's", set.Protocol)
	}
	w := &words{program: p, options: o}
	p.deny, p.allow, p.connect = w.judgement(set, "")
	shadow := set.Audit
	if o.audit && shadow == nil {
		shadow = set
	}
	if shadow != nil {
		p.shadowDeny, p.shadowAllow, p.shadowConnect = w.judgement(shadow, auditMark)
	}
	if o.audit {
		p.deny, p.allow, p.connect = nil, nil, nil
	}
	w.editing(set)
	if set.DenyResponse != nil {
		p.response = responseOf(set.DenyResponse)
	}
	for _, r := range []*rbacv3.RBAC{p.deny, p.allow, p.connect, p.shadowDeny, p.shadowAllow, p.shadowConnect} {
		if err := r.ValidateAll(); err != nil {
			return nil, fmt.Errorf("translate set %x for Envoy: %w", set.ID, err)
		}
	}
	return p.seal(), w.err
}

// seal makes the text.
func (p *program) seal() *program {
	var b strings.Builder
	for _, m := range []proto.Message{p.deny, p.allow, p.connect, p.shadowDeny, p.shadowAllow, p.shadowConnect} {
		text, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		fmt.Fprintf(&b, "%d %s", len(text), text)
	}
	fmt.Fprint(&b, p.edits, p.tests, p.response, p.raw)
	fmt.Fprintf(&b, "%q", p.names)
	p.text = b.String()
	return p
}

func (p *program) equal(o *program) bool { return p == o || p != nil && o != nil && p.text == o.text }

// auditMark begins the names of rules of policies that audit.
const auditMark = "audit-"

// words translates the rules of one set.
type words struct {
	options
	program *program
	err     error
}

// judgement translates what a set denies and what it allows, also as to tunnels.
func (w *words) judgement(set *policy.L7Set, mark string) (deny, allow, connect *rbacv3.RBAC) {
	allow, connect = denyAll(), denyAll()
	allow.Policies, connect.Policies = map[string]*rbacv3.Policy{}, map[string]*rbacv3.Policy{}
	for i, rule := range readable(set.HTTP) {
		name := w.name(mark+"allow", i, rule.Ref)
		if !w.keeps(name) || hidden(&rule) {
			continue
		}
		allow.Policies[name] = policyOf(permissionOf(&rule))
		if strings.Contains(rule.Method, connectMethod) {
			connect.Policies[name] = allow.Policies[name]
		}
	}
	for i, rule := range set.GRPC {
		name := w.name(mark+"allow", len(set.HTTP)+i, rule.Ref)
		if w.keeps(name) {
			allow.Policies[name] = policyOf(callPermission(matches(":path", callPath(&rule)), `[^,]*`))
		}
	}
	if set.Deny == nil {
		return nil, allow, connect
	}
	deny = &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{unreadRule: policyOf(unread())}}
	for i, rule := range readable(set.Deny.HTTP) {
		w.denies(deny, w.name(mark+"deny", i, rule.Ref), denyPermission(&rule))
	}
	for i, rule := range set.Deny.GRPC {
		w.denies(deny, w.name(mark+"deny", len(set.Deny.HTTP)+i, rule.Ref), callPermission(listed("paths", expression(callPath(&rule))), ".*"))
	}
	return deny, allow, connect
}

// denies adds a rule that denies. Left out it must not let through what it is about.
func (w *words) denies(r *rbacv3.RBAC, name string, p *rbacv3.Permission) {
	if !w.keeps(name) {
		p = &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
	}
	r.Policies[name] = policyOf(p)
}

// name of a rule in Envoy, which asks them in order of their names: so the first in the
// set's order that matches is the one that is told.
func (w *words) name(kind string, i int, ref policy.Ref) string {
	name := ruleName(kind, i, ref)
	w.program.rules = append(w.program.rules, name)
	return name
}

func ruleName(kind string, i int, ref policy.Ref) string {
	return fmt.Sprintf("%s/%05d %s", kind, i, ref)
}

// readable are the rules with the headers whose value was a secret's. One that denies by
// a value that is not known denies any.
func readable(rules []policy.HTTPRule) []policy.HTTPRule {
	out := slices.Clone(rules)
	for i := range out {
		r := &out[i]
		for _, s := range r.Secrets {
			r.Headers = append(r.Headers[:len(r.Headers):len(r.Headers)], policy.HeaderRule{Name: s.Name, Value: s.Value})
		}
	}
	return out
}

// hidden reports whether the rule asks for a value that is not known: it allows nothing.
func hidden(r *policy.HTTPRule) bool {
	return slices.ContainsFunc(r.Secrets, func(s policy.SecretHeader) bool { return s.Value == "" })
}

// only is the same set with some of its rules.
func (p *program) only(names []string) (*program, error) {
	out, err := programOf(p.set, options{audit: p.audit, keep: func(rule string) bool { return slices.Contains(names, rule) }})
	if err == nil {
		out.kept, out.secrets = names, p.secrets
	}
	return out, err
}

// leftOut names the rules that a set is to be translated without.
func leftOut(refused map[string]string) func(string) bool {
	if len(refused) == 0 {
		return nil
	}
	return func(rule string) bool { _, out := refused[rule]; return !out }
}
