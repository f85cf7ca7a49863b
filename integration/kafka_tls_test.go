package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certify makes a certificate of an address that has issued itself, as PEM.
func certify(t *testing.T, at netip.Addr) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "kafka"}, IPAddresses: []net.IP{at.AsSlice()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// pemPair is a certificate with its key.
type pemPair struct{ certificate, key []byte }

// put writes a file into a directory that need not be there.
func put(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// kafkaTLS has a client and a broker that speak TLS, which ends and begins again
// between them: rules hold, the broker's certificate is asked for, secrets rotate.
func kafkaTLS(t *testing.T, client *workload, b *broker, secrets string) {
	over := *b
	over.address = b.at(4, 9095).String()
	certificate, key := certify(t, b.addr(4))
	ca := filepath.Join(t.TempDir(), "ca.crt")
	put(t, ca, certificate)
	put(t, filepath.Join(secrets, "default/proxy/tls.crt"), certificate)
	put(t, filepath.Join(secrets, "default/proxy/tls.key"), key)
	put(t, filepath.Join(secrets, "default/brokers/ca.crt"), b.certificate)
	rules := allowKafkaAt(9095, "tls", "client", `role: produce, topic: "orders-*"`, `role: consume, topic: "orders-*", group: "g-*"`)
	client.node.apply(t, strings.Replace(rules, "      rules:", "      terminatingTLS: {secret: {name: proxy}}\n      originatingTLS: {secret: {name: brokers}}\n      rules:", 1))
	try := func(want, never, operation string, args ...string) error {
		out := client.kafka(t, &over, "franz", operation, append(args, "ca="+ca)...)
		if !strings.Contains(out, want) || never != "" && strings.Contains(out, never) {
			return fmt.Errorf("%s %v: want %q and not %q in:\n%s", operation, args, want, never, out)
		}
		return nil
	}
	for _, err := range []error{
		try("produced orders-a 50", "error", "produce", "topic=orders-a", "records=50", "size=100000"),
		try("error 29", "produced", "produce", "topic=secret", "seconds=20"),
		try("consumed orders-a", "error", "group", "topic=orders-a", "group=g-tls", "records=5"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	// Another certificate, with a key of its own.
	certificate, key = certify(t, b.addr(4))
	put(t, filepath.Join(secrets, "default/proxy/tls.key"), key)
	put(t, filepath.Join(secrets, "default/proxy/tls.crt"), certificate)
	put(t, ca, certificate)
	eventually(t, patience, "the new certificate", func() error {
		return try("produced orders-a 1", "error", "produce", "topic=orders-a", "seconds=5")
	})
	// A broker that is another than the one that is trusted gets nothing.
	put(t, filepath.Join(secrets, "default/brokers/ca.crt"), certificate)
	eventually(t, patience, "no trust in the broker", func() error {
		return try("error", "produced", "produce", "topic=orders-a", "seconds=3")
	})
	if err := os.Remove(filepath.Join(secrets, "default/proxy/tls.key")); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "a flow that names the secret", func() error {
		if err := try("error", "produced", "produce", "topic=orders-a", "seconds=3"); err != nil {
			return err
		}
		seen := client.node.headgate(t, "observe", "--port", "9095", "--last", "200")
		for _, want := range []string{"begin TLS to the server", "there is no tls.key in secret default/proxy"} {
			if !strings.Contains(seen, want) {
				return fmt.Errorf("no flow says %q:\n%s", want, seen[max(0, len(seen)-2<<10):])
			}
		}
		return nil
	})
}
