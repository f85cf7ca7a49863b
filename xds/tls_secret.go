package xds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Envoy gets certificates, keys and authorities by SDS, and by nothing else: they are in its
// memory and the agent's, and on the socket that is theirs alone. Another value of a secret
// is pushed as soon as the agent has read it, and holds for connections that begin then.
//
// A secret that cannot be read, or is none, closes the ports that need it. One that only
// Envoy refuses does so where Envoy has had no other: else the one before goes on, and the
// status has Envoy's words.

// shelf is what there is of secrets.
type shelf struct {
	unusable map[string]string         // by resource: why
	refused  map[string]refusal        // by Envoy, of the value that is there now
	good     map[string]types.Resource // what Envoy has taken
	offered  map[string]bool           // resources of both types
	clusters map[string]bool
	// refusedClusters are those that Envoy did not take, and why.
	refusedClusters map[string]string
}

func newShelf() *shelf {
	return &shelf{unusable: map[string]string{}, refused: map[string]refusal{}, good: map[string]types.Resource{}, offered: map[string]bool{}, clusters: map[string]bool{}, refusedClusters: map[string]string{}}
}

func certificateName(certificate, key policy.SecretRef) string {
	return fmt.Sprintf("certificate/%s/%s/%s/%s", certificate.Namespace, certificate.Name, certificate.Key, key.Key)
}

func authorityName(ref policy.SecretRef) string {
	return fmt.Sprintf("authority/%s/%s/%s", ref.Namespace, ref.Name, ref.Key)
}

// secretNames are the resources that ending TLS so takes.
func secretNames(e policy.TLSSecrets) (names []string) {
	for _, ref := range []policy.SecretRef{e.TrustedCA, e.ClientCA} {
		if ref != (policy.SecretRef{}) {
			names = append(names, authorityName(ref))
		}
	}
	for _, pair := range [][2]policy.SecretRef{{e.Certificate, e.PrivateKey}, {e.OwnCertificate, e.OwnKey}} {
		if pair[0] != (policy.SecretRef{}) {
			names = append(names, certificateName(pair[0], pair[1]))
		}
	}
	return names
}

// broken says why TLS cannot be ended so; empty: it can.
func (s *shelf) broken(e policy.TLSSecrets) string {
	for _, name := range secretNames(e) {
		if why := s.unusable[name]; why != "" {
			return why
		}
	}
	return ""
}

func inline(text string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(text)}}
}

// certificateOf makes what Envoy shows of itself.
func certificateOf(certificate, key policy.SecretRef, values map[policy.SecretRef]string) (*tlsv3.Secret, error) {
	at := fmt.Sprintf("secret %s/%s", certificate.Namespace, certificate.Name)
	for _, ref := range []policy.SecretRef{certificate, key} {
		if values[ref] == "" {
			return nil, fmt.Errorf("there is no %s in %s", ref.Key, at)
		}
	}
	if _, err := tls.X509KeyPair([]byte(values[certificate]), []byte(values[key])); err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return &tlsv3.Secret{Name: certificateName(certificate, key), Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(values[certificate]), PrivateKey: inline(values[key]),
	}}}, nil
}

// authorityOf makes what Envoy knows others by.
func authorityOf(ref policy.SecretRef, values map[policy.SecretRef]string) (*tlsv3.Secret, error) {
	at := fmt.Sprintf("secret %s/%s", ref.Namespace, ref.Name)
	if values[ref] == "" {
		return nil, fmt.Errorf("there is no %s in %s", ref.Key, at)
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(values[ref])) {
		return nil, fmt.Errorf("%s: %s holds no certificate", at, ref.Key)
	}
	return &tlsv3.Secret{Name: authorityName(ref), Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
		TrustedCa: inline(values[ref]),
	}}}, nil
}

// offerSecrets has ready for Envoy what the sets need to end TLS and to begin it. It does not wait: Envoy asks for a secret when a listener or a cluster does.
func (b *Backend) offerSecrets(values map[policy.SecretRef]string) error {
	clear(b.secrets.unusable)
	var errs error
	for _, set := range b.given {
		if set.Ends == nil {
			continue
		}
		made, unusable := secretsOf(*set.Ends, values)
		maps.Copy(b.secrets.unusable, unusable)
		for name, secret := range made {
			errs = errors.Join(errs, b.offerSecret(name, secret))
		}
	}
	return errs
}

// secretsOf are the resources that ending TLS so takes, and why others cannot be made.
func secretsOf(e policy.TLSSecrets, values map[policy.SecretRef]string) (made map[string]*tlsv3.Secret, unusable map[string]string) {
	made, unusable = map[string]*tlsv3.Secret{}, map[string]string{}
	add := func(name string, secret *tlsv3.Secret, err error) {
		if err != nil {
			unusable[name] = err.Error()
		} else {
			made[name] = secret
		}
	}
	for _, ref := range []policy.SecretRef{e.TrustedCA, e.ClientCA} {
		if ref != (policy.SecretRef{}) {
			secret, err := authorityOf(ref, values)
			add(authorityName(ref), secret, err)
		}
	}
	for _, pair := range [][2]policy.SecretRef{{e.Certificate, e.PrivateKey}, {e.OwnCertificate, e.OwnKey}} {
		if pair[0] != (policy.SecretRef{}) {
			secret, err := certificateOf(pair[0], pair[1], values)
			add(certificateName(pair[0], pair[1]), secret, err)
		}
	}
	return made, unusable
}

func (b *Backend) offerSecret(name string, made *tlsv3.Secret) error {
	if r, ok := b.secrets.refused[name]; ok {
		if r.version == versionOf(made) { // not again
			if b.secrets.good[name] == nil {
				b.secrets.unusable[name] = r.message
			}
			return nil
		}
		delete(b.secrets.refused, name)
	}
	b.secrets.offered[name] = true
	return b.store.put(resource.SecretType, map[string]types.Resource{name: made})
}

// offerCluster has the cluster ready that a pair leads to, if that is by TLS.
func (b *Backend) offerCluster(plan *tlsPlan) error {
	if !plan.begun() || plan.shut() {
		return nil
	}
	c, err := serverClusterOf(plan)
	if err != nil {
		return err
	}
	b.secrets.clusters[c.GetName()] = true
	return b.store.put(resource.ClusterType, map[string]types.Resource{c.GetName(): c})
}

// pushSecrets waits until Envoy has the secrets that are in use.
func (b *Backend) pushSecrets(ctx context.Context) error {
	refused := false
	for p := range b.ports {
		anew, err := b.takeSecrets(ctx, p)
		if err != nil {
			return err
		}
		refused = refused || anew
	}
	b.failSecrets()
	if !refused {
		return nil
	}
	return b.pushListeners(ctx) // all that need it
}

// settleSecrets does the same for one listener, which has just begun to ask for them.
func (b *Backend) settleSecrets(ctx context.Context, p pair, port redirect.ProxyPort) error {
	anew, err := b.takeSecrets(ctx, p)
	if err != nil || !anew {
		return err
	}
	b.failSecrets()
	err = b.pushListener(ctx, p, port) // which closes now
	b.noteFailed()
	return err
}

// takeSecrets waits until Envoy has what a pair needs, and says whether the pair must be
// made anew, as it refuses what it had none of before.
func (b *Backend) takeSecrets(ctx context.Context, p pair) (anew bool, err error) {
	plan := b.planOf(p)
	if plan == nil || plan.broken != "" {
		return false, nil
	}
	if plan.begun() {
		if refused, err := b.settleCluster(ctx, plan); refused || err != nil {
			return refused, err
		}
	}
	for _, name := range secretNames(plan.ends) {
		err := b.store.settle(ctx, resource.SecretType, name)
		var said *RefusedError
		switch made := b.store.caches[resource.SecretType].GetResources()[name]; {
		case err == nil:
			b.secrets.good[name] = made
		case errors.As(err, &said):
			if err := b.refuseSecret(name, made, said); err != nil {
				return false, err
			}
			anew = anew || b.secrets.unusable[name] != ""
		default:
			return false, err
		}
	}
	return anew, nil
}

// refuseSecret takes back what Envoy did not take.
func (b *Backend) refuseSecret(name string, made types.Resource, said *RefusedError) error {
	message := "Envoy refused it: " + said.Message
	b.secrets.refused[name] = refusal{version: versionOf(made), message: message}
	b.log.Error("a secret is not in force", "secret", name, "envoy", message)
	if good := b.secrets.good[name]; good != nil {
		return b.store.put(resource.SecretType, map[string]types.Resource{name: good})
	}
	b.secrets.unusable[name] = name + ": " + message
	return nil
}

// failSecrets says of sets which of their secrets are not in force.
func (b *Backend) failSecrets() {
	for n, set := range b.given {
		if set.Ends == nil || b.failed[n] != "" {
			continue
		}
		for _, name := range secretNames(*set.Ends) {
			if why := b.secrets.unusable[name]; why != "" {
				b.failed[n] = "nothing passes where TLS is to end: " + why
			} else if r, ok := b.secrets.refused[name]; ok {
				b.failed[n] = fmt.Sprintf("%s: the one before goes on: %s", name, r.message)
			}
		}
	}
}

// forgetSecrets takes away what no set needs any more, once no listener does.
func (b *Backend) forgetSecrets() error {
	secrets, clusters := map[string]bool{}, map[string]bool{}
	for _, set := range b.given {
		if set.Ends == nil {
			continue
		}
		for _, name := range secretNames(*set.Ends) {
			secrets[name] = true
		}
	}
	for p := range b.ports {
		clusters[b.planOf(p).serverCluster()] = true
	}
	gone := func(have, keep map[string]bool) []string {
		var names []string
		for name := range have {
			if !keep[name] {
				names = append(names, name)
				delete(have, name)
			}
		}
		return names
	}
	names := gone(b.secrets.offered, secrets)
	for _, name := range names {
		delete(b.secrets.good, name)
		delete(b.secrets.refused, name)
	}
	unused := gone(b.secrets.clusters, clusters)
	for _, name := range unused {
		delete(b.secrets.refusedClusters, name)
	}
	return errors.Join(b.store.put(resource.ClusterType, nil, unused...), b.store.put(resource.SecretType, nil, names...))
}
