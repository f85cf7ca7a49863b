package policy

import (
	"cmp"
	"net/netip"
	"strings"
)

// Kinds of the objects that define listeners.
const (
	KindEnvoyConfig            = "CiliumEnvoyConfig"
	KindClusterwideEnvoyConfig = "CiliumClusterwideEnvoyConfig"
)

// EnvoyConfig is what a CiliumEnvoyConfig holds, checked: resources of Envoy's whose
// names have the object's before them.
type EnvoyConfig struct {
	Resources []EnvoyResource
	Addresses []netip.Addr // that its clusters lead to
}

// EnvoyResource is one resource.
type EnvoyResource struct {
	Type  string // its type URL
	Name  string // "namespace/config/name"
	Value []byte // protobuf
}

// ResourceName is how a resource of an EnvoyConfig is called outside of it. No name
// that a node gives by itself has a slash.
func ResourceName(namespace, config, name string) string {
	return namespace + "/" + config + "/" + name
}

// String names the listener as its resource is called.
func (l *Listener) String() string { return ResourceName(l.Namespace, l.Config, l.Name) }

// Key is that of the policy object that defines the listener.
func (l *Listener) Key() string {
	p := Policy{Kind: l.Kind, Namespace: l.Namespace, Name: l.Config}
	return p.Key()
}

// lastPriority is that of a listener without one.
const lastPriority = 101

// listenerOf picks the listener that gets the connections which all these terms are
// about: that of the first priority. It does not go with rules that are judged
// otherwise: nobody would judge by both.
func listenerOf(terms []*term) (listener *Listener, alone bool) {
	for _, t := range terms {
		l := t.l7.Listener
		if (l != nil) != (terms[0].l7.Listener != nil) {
			return nil, false
		}
		if l != nil && (listener == nil || before(l, listener)) {
			listener = l
		}
	}
	return listener, true
}

func before(a, b *Listener) bool {
	return cmp.Or(cmp.Compare(cmp.Or(a.Priority, lastPriority), cmp.Or(b.Priority, lastPriority)), strings.Compare(a.String(), b.String())) < 0
}

// IsListener reports whether it is one.
func (r *EnvoyResource) IsListener() bool {
	return r.Type == "type.googleapis.com/envoy.config.listener.v3.Listener"
}
