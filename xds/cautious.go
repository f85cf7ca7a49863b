package xds

import (
	"slices"

	"github.com/headgate/headgate/policy"
)

// Of a request that lasts Envoy tells method, path, host and content type. Where rules ask
// for other headers the script keeps the whole head, request by request. Rules that ask for
// them since find a request of which that is not known.

// byHeaders reports whether rules of a set read other headers than a log entry has.
func byHeaders(p *program) bool {
	if p == nil || p.set == nil {
		return false
	}
	return slices.ContainsFunc(p.set.HTTP, func(r policy.HTTPRule) bool { return asks(&r) || len(r.Edits) > 0 }) ||
		p.set.Deny != nil && slices.ContainsFunc(p.set.Deny.HTTP, func(r policy.HTTPRule) bool { return asks(&r) })
}

func asks(r *policy.HTTPRule) bool { return len(r.Headers)+len(r.Secrets) > 0 }

// cautious judges a request of which the headers are not known: what it allows is allowed
// whatever they are.
func (p *program) cautious() policy.Judge {
	if !byHeaders(p) {
		return p.judge
	}
	p.cautiousOnce.Do(func() {
		set := *p.judged
		set.Audit = nil
		set.HTTP = slices.DeleteFunc(slices.Clone(set.HTTP), func(r policy.HTTPRule) bool { return asks(&r) })
		if set.Deny != nil {
			deny := *set.Deny
			deny.HTTP = slices.Clone(deny.HTTP)
			for i := range deny.HTTP {
				deny.HTTP[i].Headers, deny.HTTP[i].Secrets = nil, nil
			}
			set.Deny = &deny
		}
		judge, err := policy.CompileSet(&set)
		if err != nil {
			judge = nobody{err}
		}
		p.cautiousJudge = judge
	})
	return p.cautiousJudge
}

// nobody allows nothing.
type nobody struct{ why error }

// Decide implements policy.Judge.
func (n nobody) Decide(policy.Request) policy.Decision {
	return policy.Decision{Reason: "its rules cannot be read: " + n.why.Error()}
}
