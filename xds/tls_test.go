package xds

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// wantsSecrets are those that listeners and clusters ask for, as Envoy finds them.
func (f *fakeEnvoy) wantsSecrets(r *discoveryv3.DeltaDiscoveryResponse) (names []string) {
	if r.GetTypeUrl() != resource.ListenerType && r.GetTypeUrl() != resource.ClusterType {
		return nil
	}
	for _, x := range r.GetResources() {
		m, err := x.GetResource().UnmarshalNew()
		if err != nil {
			f.t.Errorf("read %s: %v", x.GetName(), err)
			continue
		}
		text, err := protojson.Marshal(m)
		if err != nil {
			f.t.Errorf("read %s: %v", x.GetName(), err)
		}
		for _, found := range regexp.MustCompile(`"((?:certificate|authority)/[^" ]*)",\s*"sdsConfig"`).FindAllSubmatch(text, -1) {
			names = append(names, string(found[1]))
		}
	}
	return names
}

var (
	certificateRef = policy.SecretRef{Namespace: "default", Name: "proxy", Key: "tls.crt"}
	keyRef         = policy.SecretRef{Namespace: "default", Name: "proxy", Key: "tls.key"}
	caRef          = policy.SecretRef{Namespace: "default", Name: "servers", Key: "ca.crt"}
)

const (
	shownSecret   = "certificate/default/proxy/tls.crt/tls.key"
	trustedSecret = "authority/default/servers/ca.crt"
)

// pairOfKeys is a certificate that has signed itself, and its key.
func pairOfKeys(t *testing.T) (certificate, private string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func endsOf(n byte, names ...string) *policy.L7Set {
	s := httpSet(n, "GET")
	s.Ends = &policy.TLSSecrets{Certificate: certificateRef, PrivateKey: keyRef, TrustedCA: caRef}
	for _, name := range names {
		s.TLS = append(s.TLS, policy.TLSRule{ServerName: name})
	}
	return s
}

func secretsFor(t *testing.T, revision uint64, sets ...*policy.L7Set) redirect.Snapshot {
	t.Helper()
	certificate, key := pairOfKeys(t)
	s := snapshot(revision, sets...)
	s.Secrets = map[policy.SecretRef]string{certificateRef: certificate, keyRef: key, caRef: certificate}
	return s
}

// chains are the filter chains that the fake has been told of.
func chains(t *testing.T, f *fakeEnvoy, p pair) string {
	t.Helper()
	var l listenerv3.Listener
	if !f.get(resource.ListenerType, p.name(), &l) {
		t.Fatal("there is no listener")
	}
	var names []string
	for _, c := range l.GetFilterChains() {
		names = append(names, c.GetName())
	}
	return strings.Join(names, " ")
}

// keyHeld is the key that the fake has been told of.
func keyHeld(f *fakeEnvoy) string {
	var s tlsv3.Secret
	if !f.get(resource.SecretType, shownSecret, &s) {
		return ""
	}
	return string(s.GetTlsCertificate().GetPrivateKey().GetInlineBytes())
}

func failure(err error) string {
	var sets *redirect.SetsError
	if !errors.As(err, &sets) {
		return ""
	}
	return sets.Failed[number]
}

// TestSecrets: what ends TLS is pushed when it changes; what is missing, or refused at
// first, closes the listener; what is refused later leaves the one before in force.
func TestSecrets(t *testing.T) {
	var refuses atomic.Bool
	b := newTestBackend(t, Config{})
	f := connectFake(t, b, nil, func(r *discoveryv3.DeltaDiscoveryResponse) string {
		if r.GetTypeUrl() == resource.SecretType && refuses.Load() && strings.Contains(r.String(), shownSecret) {
			return "the key is too short"
		}
		return ""
	})
	p := pair{ingress: number}
	open, shut := "carried closed carried2", "idle closed"
	want := func(what, chain, key string, s redirect.Snapshot, why string) {
		t.Helper()
		err := b.Enforce(patient(t), s)
		if got := failure(err); (got == "") != (why == "") || !strings.Contains(got, why) || why == "" && err != nil {
			t.Errorf("%s: %v, want %q", what, err, why)
		}
		if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return chains(t, f, p) == chain })
		waitFor(t, func() bool { return keyHeld(f) == key })
		if detail := b.Status().Detail; !strings.Contains(detail, why) {
			t.Errorf("%s: status says %q, want %q", what, detail, why)
		}
	}
	first := secretsFor(t, 1, endsOf(1))
	want("a good secret", open, first.Secrets[keyRef], first, "")
	listeners := f.count(resource.ListenerType)
	second := secretsFor(t, 2, endsOf(1))
	want("another", open, second.Secrets[keyRef], second, "")
	if n := f.count(resource.ListenerType); n != listeners {
		t.Errorf("listeners were pushed %d times for a secret", n-listeners)
	}
	refuses.Store(true)
	bad := secretsFor(t, 3, endsOf(1))
	want("one that Envoy refuses", open, second.Secrets[keyRef], bad, "the key is too short")
	bad.Revision = 4
	want("the same again", open, second.Secrets[keyRef], bad, "the key is too short")
	refuses.Store(false)
	missing := secretsFor(t, 5, endsOf(1))
	delete(missing.Secrets, keyRef)
	want("none", shut, second.Secrets[keyRef], missing, "there is no tls.key in secret default/proxy")
	broken := secretsFor(t, 6, endsOf(1))
	broken.Secrets[caRef] = "no certificate"
	want("no authority", shut, broken.Secrets[keyRef], broken, "ca.crt holds no certificate")
	third := secretsFor(t, 7, endsOf(1))
	want("a good one after that", open, third.Secrets[keyRef], third, "")
	d, err := b.Discovery("secret")
	if err != nil || len(d.Resources) != 2 {
		t.Fatalf("dump of secrets: %+v, %v", d.Resources, err)
	}
	for _, r := range d.Resources {
		if strings.Contains(string(r.Body), "LS0t") || strings.Contains(string(r.Body), "-----") {
			t.Errorf("a secret shows: %s", r.Body)
		}
	}
	// A set that needs none takes them away.
	if err := b.Enforce(patient(t), snapshot(8, httpSet(9, "GET"))); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return keyHeld(f) == "" && len(f.names(resource.SecretType)) == 0 })
}

// TestSecretRefusedAtFirst: a listener whose secret Envoy refuses is served, and closes.
func TestSecretRefusedAtFirst(t *testing.T) {
	b := newTestBackend(t, Config{})
	f := connectFake(t, b, nil, func(r *discoveryv3.DeltaDiscoveryResponse) string {
		if r.GetTypeUrl() == resource.SecretType && strings.Contains(r.String(), trustedSecret) {
			return "no such curve"
		}
		return ""
	})
	if err := b.Enforce(patient(t), secretsFor(t, 1, endsOf(1))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)}); err != nil {
		t.Fatal(err)
	}
	if got := chains(t, f, pair{ingress: number}); got != "idle closed" {
		t.Errorf("the listener has the chains %s", got)
	}
	if s := b.Status(); !strings.Contains(s.Detail, "no such curve") {
		t.Errorf("status says %q", s.Detail)
	}
}

// TestNamesChangeTheSorting: new names leave the filter chains, and so what is open, alone.
func TestNamesChangeTheSorting(t *testing.T) {
	b := newTestBackend(t, Config{})
	f := connectFake(t, b, nil, nil)
	read := func() *listenerv3.Listener {
		var l listenerv3.Listener
		if !f.get(resource.ListenerType, pair{ingress: number}.name(), &l) {
			t.Fatal("there is no listener")
		}
		return &l
	}
	if err := b.Enforce(patient(t), secretsFor(t, 1, endsOf(1, "a.example"))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)}); err != nil {
		t.Fatal(err)
	}
	before := read()
	if err := b.Enforce(patient(t), secretsFor(t, 2, endsOf(2, "b.example"))); err != nil {
		t.Fatal(err)
	}
	after := read()
	if proto.Equal(before.GetFilterChainMatcher(), after.GetFilterChainMatcher()) {
		t.Error("the sorting is the same")
	}
	after.FilterChainMatcher = before.GetFilterChainMatcher()
	if !proto.Equal(before, after) {
		t.Error("more than the sorting has changed")
	}
}

func TestTLSResources(t *testing.T) {
	p := pair{egress: 0x01000002, ingress: 0x01000005}
	ends := policy.TLSSecrets{Certificate: certificateRef, PrivateKey: keyRef, TrustedCA: caRef}
	tlsOnly := redirect.SetNumber(uint32(policy.ProtocolTLS)<<24 | 3)
	for name, tt := range map[string]struct {
		pair pair
		plan *tlsPlan
	}{
		"listener_tls_ends":   {p, &tlsPlan{ends: ends, http: true, names: []nameRules{{`(?i:a\.example)`}, nil}}},
		"listener_tls_names":  {pair{ingress: tlsOnly}, &tlsPlan{names: []nameRules{{`(?i:a\.example)`, `(?i:b\.example)`}}}},
		"listener_tls_broken": {p, &tlsPlan{ends: ends, http: true, broken: "there is no tls.key"}},
	} {
		var b builder
		l := b.tlsListener(tt.pair, 12345, tt.plan)
		if err := b.check(l); err != nil {
			t.Fatal(err)
		}
		golden(t, name, l)
	}
	c, err := serverClusterOf(&tlsPlan{ends: ends, http: true})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "cluster_tls", c)
}
