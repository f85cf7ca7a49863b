package cnp

import (
	"fmt"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// checkTLSPort: TLS is read over TCP alone. Datagrams have none, or hide it (QUIC), so
// that there they stay denied; every port is as good as one.
func checkTLSPort(v manifest.Value, port *policy.PortRule) {
	switch port.Proto {
	case policy.ProtoTCP:
	case policy.ProtoAny:
		port.Proto = policy.ProtoTCP
		v.Warn("is allowed over TCP alone: of QUIC, over UDP, the server name cannot be judged; write protocol: TCP")
	default:
		v.Fail("has server names or TLS that ends here, which are read over TCP: what is in QUIC cannot be judged; write protocol: TCP")
	}
}

// serverNames reads the names that a client may give when TLS begins.
func serverNames(v manifest.Value, at policy.PortRule) *policy.L7Rules {
	l7 := at.L7
	switch {
	case l7 == nil:
		l7 = &policy.L7Rules{Protocol: policy.ProtocolTLS}
	case at.TLS == nil || at.TLS.Certificate == (policy.SecretRef{}):
		v.Fail("does not go with rules unless TLS ends here; write terminatingTLS, or delete one")
	}
	if v.Len() == 0 {
		v.Fail("is empty; write at least one name, or delete the key")
	}
	for i, item := range v.List() {
		text, ok := item.Text()
		if !ok {
			continue
		}
		if text == "" {
			item.Fail("is empty; write a name, as www.example.com, or a pattern, as *.example.com")
		} else if err := policy.ValidateDNSPattern(text); err != nil {
			item.Fail("%v", err)
		}
		ref := policy.Ref{Policy: at.Ref.Policy, Path: fmt.Sprintf("%s.serverNames[%d]", at.Ref.Path, i)}
		l7.TLS = append(l7.TLS, policy.TLSRule{ServerName: text, Ref: ref})
	}
	return l7
}

// tlsSecrets reads which secrets TLS is ended and begun again by, and under which keys.
// Certificates of clients are asked for and shown only where their keys are named: a
// usual key may be there for another reason.
func (r *reader) tlsSecrets(fields map[string]manifest.Value) *policy.TLSSecrets {
	var secrets policy.TLSSecrets
	if v, ok := fields["terminatingTLS"]; ok {
		c := r.tlsContext(v)
		secrets.Certificate, secrets.PrivateKey = c.key("certificate", "tls.crt"), c.key("privateKey", "tls.key")
		if c.names("trustedCA") {
			secrets.ClientCA = c.key("trustedCA", "ca.crt")
		}
	}
	if v, ok := fields["originatingTLS"]; ok {
		c := r.tlsContext(v)
		secrets.TrustedCA = c.key("trustedCA", "ca.crt")
		if c.names("certificate") || c.names("privateKey") {
			secrets.OwnCertificate, secrets.OwnKey = c.key("certificate", "tls.crt"), c.key("privateKey", "tls.key")
		}
	}
	if secrets == (policy.TLSSecrets{}) {
		return nil
	}
	return &secrets
}

// tlsContext is a secret, and the keys in it that fields name.
type tlsContext struct {
	secret policy.SecretRef
	fields map[string]manifest.Value
}

func (r *reader) tlsContext(v manifest.Value) tlsContext {
	c := tlsContext{fields: v.Object([]string{"secret", "certificate", "privateKey", "trustedCA"}, nil)}
	secret, ok := c.fields["secret"]
	if !ok {
		v.Fail("secret is missing; write secret: {name: NAME}")
		return tlsContext{}
	}
	c.secret = *r.secret(secret)
	return c
}

func (c *tlsContext) names(field string) bool { _, ok := c.fields[field]; return ok }

// key is one value of the secret: under the key that a field names, or the usual one.
func (c *tlsContext) key(field, usual string) policy.SecretRef {
	ref := c.secret
	if ref == (policy.SecretRef{}) {
		return ref
	}
	ref.Key = usual
	if v, ok := c.fields[field]; ok {
		if ref.Key, ok = v.Text(); ok {
			if err := policy.ValidateName(ref.Key); err != nil {
				v.Fail("%v", err)
			}
		}
	}
	return ref
}
