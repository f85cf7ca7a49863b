package xds

import (
	"cmp"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// connection tells of one connection of a listener: that it was refused or failed, as soon
// as it is over, or that it is carried, as soon as the server has it.
func (b *Backend) connection(p pair, e *datav3.TCPAccessLogEntry) []observe.Record {
	common := e.GetCommonProperties()
	tags := common.GetCustomTags()
	switch {
	case tags[carriedTag] != "":
		return b.carriedRecords(p, e)
	case tags[passedTag] != "": // what is not HTTP, or not TLS, where nobody minds
		return b.unread(p, e)
	}
	r, ok := b.hello(common)
	if !ok {
		return nil
	}
	failure := common.GetDownstreamTransportFailureReason()
	switch tags[chainTag] {
	case chainRefused:
		b.refusedName(&r, p)
	case chainClosed:
		r.Word, r.Detail = observe.Errored, cmp.Or(tags[brokenTag], "what came is not TLS")
	case chainUnread:
		return nil // it is told of as such
	case chainCarried, chainCarried2:
		if failure == "" {
			return b.allowedName(r, p)
		}
		r.Word, r.Detail = observe.Errored, "end the client's TLS: "+failure
	default: // it was over before a filter chain was chosen
		if r.Destination.Addr().IsLoopback() { // it is the agent, which sees whether Envoy listens
			return nil
		}
		r.Word, r.Detail = observe.Errored, "the connection ended before a hello came"
	}
	return []observe.Record{r}
}

// helloOf is what a client said when TLS began; nil: it did not.
func helloOf(common *datav3.AccessLogCommon) *policy.TLSRequest {
	if t := common.GetTlsProperties(); t != nil {
		return &policy.TLSRequest{ServerName: t.GetTlsSniHostname()}
	}
	return nil
}

func schemeOf(e *datav3.HTTPAccessLogEntry) string {
	if e.GetCommonProperties().GetTlsProperties() != nil {
		return "https://"
	}
	return "http://"
}

// allowedName tells of a connection, which is over, by which rule its name was allowed;
// those that are carried unread were told of when they began.
func (b *Backend) allowedName(r observe.Record, p pair) []observe.Record {
	if !p.speaks(policy.ProtocolHTTP) || !b.judgesNames(p) {
		return nil
	}
	b.decidedName(&r, p)
	return []observe.Record{r}
}

// decidedName says which rule allows a name, and which of those that audit would not. One
// that no rule allows any more is told of as denied.
func (b *Backend) decidedName(r *observe.Record, p pair) {
	d, direction := b.judgeName(p, r.TLS.ServerName)
	r.Direction, r.Rule = direction, d.Rule
	if d.Verdict != policy.Allow {
		r.Word, r.Reason, r.Nearest, r.Detail = observe.Dropped, observe.ReasonPolicyDenied, d.Nearest, d.Reason
		return
	}
	if d.Audit != nil {
		r.Word, r.Rule, r.Nearest, r.Detail = observe.Audited, d.Audit.Rule, d.Audit.Nearest, d.Audit.Reason
	}
}

func (b *Backend) judgesNames(p pair) bool {
	for _, n := range [2]redirect.SetNumber{p.egress, p.ingress} {
		if program := b.program(n); program != nil && program.set.JudgesNames() {
			return true
		}
	}
	return false
}

// hello is the record of a connection that began with TLS, or was to.
func (b *Backend) hello(common *datav3.AccessLogCommon) (observe.Record, bool) {
	r, ok := b.ends(common)
	r.TLS = &observe.TLS{ServerName: common.GetTlsProperties().GetTlsSniHostname()}
	return r, ok
}

// refusedName says which rule came nearest to a name that no rule allows.
func (b *Backend) refusedName(r *observe.Record, p pair) {
	r.Word, r.Reason = observe.Dropped, observe.ReasonPolicyDenied
	b.explainName(r, p, r.TLS.ServerName)
}

// explainName says why a name is denied.
func (b *Backend) explainName(r *observe.Record, p pair, name string) {
	d, direction := b.judgeName(p, name)
	r.Direction, r.Detail = direction, "no rule allows this server name"
	if d.Verdict != policy.Allow {
		r.Nearest, r.Detail = d.Nearest, cmp.Or(d.Reason, r.Detail)
	}
}

// judgeName judges the name that a client gave by the rules in force, as Envoy does: egress
// first, then ingress. What only policies that audit deny is said in Audit.
func (b *Backend) judgeName(p pair, name string) (policy.Decision, policy.Direction) {
	out, of := policy.Decision{Verdict: policy.Allow}, policy.Egress
	if p.egress == 0 {
		of = policy.Ingress
	}
	for _, direction := range []policy.Direction{policy.Egress, policy.Ingress} {
		n := p.in(direction)
		if n == 0 {
			continue
		}
		program := b.program(n)
		if program == nil || program.set == nil {
			return policy.Decision{Reason: "its rules are not in force any more"}, direction
		}
		if !program.set.JudgesNames() {
			continue
		}
		d := program.judge.Decide(&policy.TLSRequest{ServerName: name})
		switch denied := d.Verdict != policy.Allow; {
		case denied && !program.audit:
			return d, direction
		case denied:
			would := d
			d = policy.Decision{Verdict: policy.Allow, Audit: &would}
			fallthrough
		default:
			if out.Audit == nil {
				out, of = d, direction
			}
		}
	}
	return out, of
}

// carriedRecords tells of a connection whose TLS, or what was in it, is carried unread.
func (b *Backend) carriedRecords(p pair, e *datav3.TCPAccessLogEntry) []observe.Record {
	common := e.GetCommonProperties()
	r, ok := b.hello(common)
	if !ok {
		return nil
	}
	key := exchangeKey{connection: connection{r.Source, r.Destination}, began: common.GetStartTime().AsTime().UnixNano()}
	b.decidedName(&r, p)
	switch common.GetAccessLogType() {
	case datav3.AccessLogType_TcpUpstreamConnected:
		b.goesOn(key, &exchange{pair: p, hello: &policy.TLSRequest{ServerName: r.TLS.ServerName}, record: r})
		return []observe.Record{r}
	case datav3.AccessLogType_TcpPeriodic:
		b.goesOn(key, &exchange{pair: p, hello: &policy.TLSRequest{ServerName: r.TLS.ServerName}, record: r})
		return nil
	}
	cut := b.underway.over(key)
	if failure := failures(common.GetResponseFlags()); failure != "" && !cut {
		r.Time, r.Word, r.Rule, r.Nearest = time.Now(), observe.Errored, policy.Ref{}, policy.Ref{}
		r.Detail = failure
		if why := common.GetUpstreamTransportFailureReason(); why != "" {
			r.Detail += ": " + why
		}
		return []observe.Record{r}
	}
	return nil
}

// judgeExchange judges again what goes on: a request as such, and all by the name that its
// connection began with.
func (b *Backend) judgeExchange(x *exchange) (policy.Decision, policy.Direction) {
	d, direction := policy.Decision{Verdict: policy.Allow}, policy.Ingress
	if x.hello != nil {
		d, direction = b.judgeName(x.pair, x.hello.ServerName)
	}
	if d.Verdict == policy.Allow && x.request != nil {
		return b.judge(x.pair, x.request, x.partial)
	}
	return d, direction
}
