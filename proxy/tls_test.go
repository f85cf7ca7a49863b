package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// certified is a certificate that has issued itself, for a name and 127.0.0.1.
type certified struct {
	pair             tls.Certificate
	certificate, key string // PEM
	pool             *x509.CertPool
}

func certify(t *testing.T, name string) certified {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{{127, 0, 0, 1}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	c := certified{pool: x509.NewCertPool()}
	c.certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	c.key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
	c.pool.AppendCertsFromPEM([]byte(c.certificate))
	c.pair, err = tls.X509KeyPair([]byte(c.certificate), []byte(c.key))
	must(t, err)
	return c
}

var (
	certificateRef = policy.SecretRef{Namespace: "n", Name: "proxy", Key: "tls.crt"}
	keyRef         = policy.SecretRef{Namespace: "n", Name: "proxy", Key: "tls.key"}
	caRef          = policy.SecretRef{Namespace: "n", Name: "broker", Key: "ca.crt"}
)

// enforceTLS puts Kafka rules in force for connections whose TLS ends.
func (r *running) enforceTLS(by policy.TLSSecrets, secrets map[policy.SecretRef]string) {
	r.t.Helper()
	id := policy.SetID{1}
	_, err := r.client.Enforce(r.t.Context(), snapshotToProto(redirect.Snapshot{
		Revision: uint64(time.Now().UnixNano()), Secrets: secrets,
		Sets: map[policy.SetID]redirect.NumberedSet{id: {Number: setKafka, Set: &policy.L7Set{ID: id, Protocol: policy.ProtocolKafka, Ends: &by}}},
	}))
	must(r.t, err)
}

// askKafka sends a request for two topics and one of 1 MB, and wants two answers.
func askKafka(t *testing.T, c io.ReadWriter) {
	t.Helper()
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Version = 12
	produce := kmsg.NewPtrProduceRequest()
	produce.Version, produce.Acks = 9, -1
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "a"
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = bytes.Repeat([]byte("record"), 1<<18)
	topic.Partitions = append(topic.Partitions, partition)
	produce.Topics = append(produce.Topics, topic)
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("tester"))
	_, err := c.Write(slices.Concat(f.AppendRequest(nil, metadata, 1), f.AppendRequest(nil, produce, 2)))
	must(t, err)
	for want := byte(1); want <= 2; want++ {
		b, err := readKafka(c)
		must(t, err)
		if b[3] != want {
			t.Errorf("an answer to %d, want one to %d", b[3], want)
		}
	}
}

func TestTLSEndsAndBegins(t *testing.T) {
	own, brokers := certify(t, "kafka.example"), certify(t, "kafka.example")
	secrets := map[policy.SecretRef]string{certificateRef: own.certificate, keyRef: own.key, caRef: brokers.certificate}
	for name, by := range map[string]policy.TLSSecrets{
		"both":   {Certificate: certificateRef, PrivateKey: keyRef, TrustedCA: caRef},
		"client": {Certificate: certificateRef, PrivateKey: keyRef},
		"server": {TrustedCA: caRef},
	} {
		t.Run(name, func(t *testing.T) {
			asked, named := make(chan int16, 100), make(chan string, 10)
			to := server(t, func(c *net.TCPConn) {
				var rw io.ReadWriter = c
				if by.TrustedCA != (policy.SecretRef{}) {
					over := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{brokers.pair}})
					if over.Handshake() != nil {
						return
					}
					named <- over.ConnectionState().ServerName
					rw = over
				}
				answerKafka(rw, asked)
			})
			r := startKafkaAt(t, to, "a")
			r.enforceTLS(by, secrets)
			var c io.ReadWriter = r.dial()
			if by.Certificate != (policy.SecretRef{}) {
				c = tls.Client(c.(net.Conn), &tls.Config{RootCAs: own.pool, ServerName: "kafka.example"})
			}
			askKafka(t, c)
			askKafka(t, c)
			if by.TrustedCA == (policy.SecretRef{}) {
				return
			}
			want := "kafka.example"
			if by.Certificate == (policy.SecretRef{}) {
				want = "" // an address is no name, and is not said
			}
			if got := <-named; got != want {
				t.Errorf("the server was asked for %q, want %q", got, want)
			}
		})
	}
}

// TestTLSFailsClosed wants nothing to reach the server where TLS cannot end or begin
// as rules say.
func TestTLSFailsClosed(t *testing.T) {
	own, other := certify(t, "kafka.example"), certify(t, "kafka.example")
	all := policy.TLSSecrets{Certificate: certificateRef, PrivateKey: keyRef, TrustedCA: caRef}
	good := map[policy.SecretRef]string{certificateRef: own.certificate, keyRef: own.key, caRef: own.certificate}
	without := func(ref policy.SecretRef, instead string) map[policy.SecretRef]string {
		m := map[policy.SecretRef]string{}
		for k, v := range good {
			m[k] = v
		}
		if delete(m, ref); instead != "" {
			m[ref] = instead
		}
		return m
	}
	for name, tt := range map[string]struct {
		by      policy.TLSSecrets
		secrets map[policy.SecretRef]string
		plain   bool // the client does not speak TLS
	}{
		"no certificate":           {all, without(certificateRef, ""), false},
		"no key":                   {all, without(keyRef, ""), false},
		"no authority":             {all, without(caRef, ""), false},
		"another's key":            {all, without(keyRef, other.key), false},
		"no authority in it":       {all, without(caRef, "nothing"), false},
		"a broker of another":      {all, without(caRef, other.certificate), false},
		"rules that do not agree":  {policy.TLSSecrets{Conflict: true}, good, false},
		"a client of plain text":   {all, good, true},
		"TLS where it should not":  {policy.TLSSecrets{TrustedCA: caRef}, good, false},
		"no authority, plain text": {policy.TLSSecrets{TrustedCA: caRef}, without(caRef, ""), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan int16, 100)
			r := startKafkaAt(t, server(t, func(c *net.TCPConn) {
				answerKafka(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{own.pair}}), asked)
			}), "a")
			r.enforceTLS(tt.by, tt.secrets)
			sock, err := net.Dial("tcp", r.addr)
			if err != nil {
				return // refused as it connected
			}
			defer sock.Close()
			_ = sock.SetDeadline(time.Now().Add(20 * time.Second))
			var c io.ReadWriter = sock
			if !tt.plain {
				c = tls.Client(c.(net.Conn), &tls.Config{RootCAs: own.pool, ServerName: "kafka.example"})
			}
			_, _ = c.Write(kafkaFetch(1, 0))
			if b, err := readKafka(c); err == nil && len(b) > 0 {
				t.Errorf("it was answered: %x", b)
			}
			if len(asked) > 0 {
				t.Errorf("the server was asked")
			}
			eventually(t, "the connection to end", func() bool { return r.status().Connections == 0 })
		})
	}
}

// TestTLSRotates gives new connections the new certificate and lets the old go on.
func TestTLSRotates(t *testing.T) {
	first, second := certify(t, "kafka.example"), certify(t, "kafka.example")
	by := policy.TLSSecrets{Certificate: certificateRef, PrivateKey: keyRef}
	r := startKafkaAt(t, server(t, kafkaBroker(make(chan int16, 100))), "a")
	r.enforceTLS(by, map[policy.SecretRef]string{certificateRef: first.certificate, keyRef: first.key})
	before := tls.Client(r.dial(), &tls.Config{RootCAs: first.pool, ServerName: "kafka.example"})
	askKafka(t, before)
	r.enforceTLS(by, map[policy.SecretRef]string{certificateRef: second.certificate, keyRef: second.key})
	after := tls.Client(r.dial(), &tls.Config{RootCAs: second.pool, ServerName: "kafka.example"})
	askKafka(t, after)
	askKafka(t, before)
	if err := tls.Client(r.dial(), &tls.Config{RootCAs: first.pool, ServerName: "kafka.example"}).Handshake(); err == nil {
		t.Error("the first certificate is still given")
	}
	// Without the secret nothing more is ended, nor answered on what was.
	r.enforceTLS(by, nil)
	if c, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true}); err == nil {
		_ = c.Close()
		t.Error("TLS ends without a certificate")
	}
}
