package xds

import (
	"slices"
	"strings"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// scriptMetadata is what the script tells of a request: what it changed, by direction,
// and the head of a request for a tunnel.
const scriptMetadata = "headgate"

// notesOf says what was done with the headers of a request.
func notesOf(e *datav3.HTTPAccessLogEntry) string {
	fields := e.GetCommonProperties().GetMetadata().GetFilterMetadata()[scriptMetadata].GetFields()
	var notes []string
	for _, direction := range []string{egressWord, ingressWord} {
		if note := fields[direction].GetStringValue(); note != "" {
			notes = append(notes, note)
		}
	}
	return strings.Join(notes, "; ")
}

// explain says why a request was denied, or would have been: by the same rules, as Envoy
// tells only which rule matched, and not which came nearest. Where headers are asked for,
// which are not in the log, it does not guess.
func (b *Backend) explain(r *observe.Record, p pair, d decided, e *datav3.HTTPAccessLogEntry) {
	if d.byName {
		b.explainName(r, p, e.GetCommonProperties().GetTlsProperties().GetTlsSniHostname())
		return
	}
	r.Detail = "no rule allows this request"
	if d.byRule {
		r.Detail = "a rule denies such requests"
		return
	}
	program := b.program(p.in(d.direction))
	if program == nil || program.judge == nil || asksForHeaders(program.set) {
		return
	}
	found := program.judge.Decide(partOf(r, e))
	if found.Audit != nil {
		found = *found.Audit
	}
	if found.Verdict != policy.Allow && found.Reason != "" {
		r.Nearest, r.Detail = found.Nearest, found.Reason
	}
}

func asksForHeaders(set *policy.L7Set) bool {
	return set != nil && (slices.ContainsFunc(set.HTTP, func(r policy.HTTPRule) bool { return len(r.Headers)+len(r.Secrets) > 0 }) || asksForHeaders(set.Audit))
}

// in is the set of one direction.
func (p pair) in(d policy.Direction) redirect.SetNumber {
	if d == policy.Egress {
		return p.egress
	}
	return p.ingress
}

// program is what is in force of a set; nil: nothing.
func (b *Backend) program(n redirect.SetNumber) *program {
	if all := b.inUse.Load(); all != nil {
		return (*all)[n]
	}
	return nil
}
