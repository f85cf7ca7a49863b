package xds

import (
	"cmp"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Rules may ask for the server name that a client gives (serverNames), and have TLS end
// here and begin again behind (terminatingTLS, originatingTLS).
//
// A listener looks at what a connection begins with (tls_inspector) and sorts it into filter
// chains: TLS with a name that both sides allow is carried, either as it is or, with a
// certificate, as what is in it; another name gets an alert; what is not TLS is closed, or
// where policies only observe goes on as it is. A change of names changes the sorting alone,
// which connections that are open do not notice: those that are carried as they are the agent
// judges again (tunnel.go), of the others each request is asked for the name of its
// connection, in the route configuration.
//
// How TLS ends is the same for as long as a set has its number (package reconcile), so what
// was plain is never read as TLS, and nothing that was TLS goes on plainly.
//
// Certificates and keys come by SDS (tls_secret.go). A listener whose secret is missing, or
// that cannot be used, closes what comes.

// tlsPlan is what a listener does about TLS. Nil: nothing.
type tlsPlan struct {
	ends  policy.TLSSecrets // zero: TLS goes on as it is
	names []nameRules       // of both sides; nil: whatever
	http  bool              // what is in it is HTTP, and judged
	raw   bool              // what is not TLS passes too
	// broken says why nothing passes.
	broken string
}

// greeted: clients have to say hello.
func (t *tlsPlan) greeted() bool {
	return t.ends == (policy.TLSSecrets{}) || t.ends.Certificate != (policy.SecretRef{})
}

// ended: what the client's TLS hides is read here.
func (t *tlsPlan) ended() bool { return t.ends.Certificate != (policy.SecretRef{}) }

// begun: the server is spoken to by TLS.
func (t *tlsPlan) begun() bool { return t != nil && t.ends.TrustedCA != (policy.SecretRef{}) }

// chooses: clients and servers may speak different versions of HTTP.
func (t *tlsPlan) chooses() bool { return t.http && t.ended() && t.begun() }

// named reports whether not every server name is allowed.
func (t *tlsPlan) named() bool {
	return slices.ContainsFunc(t.names, func(r nameRules) bool { return r != nil })
}

// speaks reports whether one of the sets is for the protocol.
func (p pair) speaks(protocol policy.Protocol) bool {
	return p.egress != 0 && p.egress.Protocol() == protocol || p.ingress != 0 && p.ingress.Protocol() == protocol
}

// planOf says what is done about TLS on connections of a pair.
func (b *Backend) planOf(p pair) *tlsPlan {
	plan := b.planned(p)
	if r, ok := b.shut[p]; ok && !plan.shut() {
		if plan == nil {
			plan = &tlsPlan{http: p.speaks(policy.ProtocolHTTP)}
		}
		plan.broken = r.message
	}
	return plan
}

// planned is that before Envoy has had its say. How TLS ends is what the
// snapshot says, whether or not the rules could be put in force: where they are not, nothing
// passes, as what comes could be taken for plain text.
func (b *Backend) planned(p pair) *tlsPlan {
	plan := &tlsPlan{http: p.speaks(policy.ProtocolHTTP), raw: b.raw(p)}
	var ends *policy.TLSSecrets
	asked := p.speaks(policy.ProtocolTLS)
	for _, n := range [2]redirect.SetNumber{p.egress, p.ingress} {
		if n == 0 {
			continue
		}
		program := b.sets[n]
		if set := b.given[n]; set != nil {
			ends = ends.Or(set.Ends)
			asked = asked || (program == nil || program.set == nil) && namesOf(set) != nil
		}
		if program == nil || program.set == nil {
			if plan.broken = "its rules are not in force"; b.failed[n] != "" {
				plan.broken = b.failed[n]
			}
			continue
		}
		plan.names = append(plan.names, program.names)
		asked = asked || program.names != nil
	}
	if ends == nil && !asked {
		return nil
	}
	if ends != nil {
		plan.ends = *ends
	}
	switch {
	case plan.broken != "":
	case plan.ends.Conflict:
		plan.broken = "rules for one port name different secrets to end TLS by: write the same in all of them"
	case plan.http && ends == nil:
		plan.broken = "rules of one side ask for server names, and those of the other for HTTP, which TLS hides: write terminatingTLS"
	case !plan.greeted() && plan.named():
		plan.broken = "rules ask for the server name of a client that speaks plain text (originatingTLS alone): write terminatingTLS too"
	default:
		plan.broken = cmp.Or(b.secrets.broken(plan.ends), b.secrets.refusedClusters[plan.serverCluster()])
	}
	return plan
}

// routed reports whether a listener of the pair asks for a route configuration of its name.
func (p pair) routed() bool { return !p.custom() && p.speaks(policy.ProtocolHTTP) }

// serverCluster is where connections lead: where the client dialled, by TLS or not.
func (t *tlsPlan) serverCluster() string {
	if !t.begun() {
		return clusterName
	}
	name := clusterName + " " + authorityName(t.ends.TrustedCA)
	if t.ends.OwnCertificate != (policy.SecretRef{}) {
		name += " " + certificateName(t.ends.OwnCertificate, t.ends.OwnKey)
	}
	if t.chooses() {
		name += " by ALPN"
	}
	return name
}

// shut: nothing passes.
func (t *tlsPlan) shut() bool { return t != nil && t.broken != "" }

// routesOverTLS has the routes of a pair lead where its connections do, and ask for their
// names.
func (b *Backend) routesOverTLS(p pair, c *routev3.RouteConfiguration) (*routev3.RouteConfiguration, error) {
	plan := b.planOf(p)
	if plan == nil {
		return c, nil
	}
	var build builder
	for _, host := range c.GetVirtualHosts() {
		if plan.ended() {
			host.TypedPerFilterConfig[namesFilter] = build.askNames(b.sets[p.egress], b.sets[p.ingress])
		}
		for _, r := range host.GetRoutes() {
			if to := r.GetRoute(); to != nil {
				to.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: plan.serverCluster()}
			}
		}
	}
	return c, build.check(c)
}
