package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
)

var (
	clientCARef       = policy.SecretRef{Namespace: "n", Name: "proxy", Key: "clients.crt"}
	ownCertificateRef = policy.SecretRef{Namespace: "n", Name: "broker", Key: "tls.crt"}
	ownKeyRef         = policy.SecretRef{Namespace: "n", Name: "broker", Key: "tls.key"}
)

// TestTLSCertificatesOfClients has a client show a certificate, which is not the one
// that the server sees.
func TestTLSCertificatesOfClients(t *testing.T) {
	own, brokers := certify(t, "kafka.example"), certify(t, "kafka.example")
	clients, mine, stranger := certify(t, "client"), certify(t, "the gate"), certify(t, "client")
	all := policy.TLSSecrets{
		Certificate: certificateRef, PrivateKey: keyRef, TrustedCA: caRef,
		ClientCA: clientCARef, OwnCertificate: ownCertificateRef, OwnKey: ownKeyRef,
	}
	good := func() map[policy.SecretRef]string {
		return map[policy.SecretRef]string{
			certificateRef: own.certificate, keyRef: own.key, caRef: brokers.certificate,
			clientCARef: clients.certificate, ownCertificateRef: mine.certificate, ownKeyRef: mine.key,
		}
	}
	without := func(ref policy.SecretRef, instead string) map[policy.SecretRef]string {
		m := good()
		if delete(m, ref); instead != "" {
			m[ref] = instead
		}
		return m
	}
	shown := func(c certified) []tls.Certificate { return []tls.Certificate{c.pair} }
	shows := all
	shows.ClientCA = policy.SecretRef{}
	orphan := policy.TLSSecrets{ClientCA: clientCARef}
	for name, tt := range map[string]struct {
		by       policy.TLSSecrets
		secrets  map[policy.SecretRef]string
		client   []tls.Certificate
		broker   certified // whose clients' certificates it takes
		answered bool
		told     string // what the client is
	}{
		"both":                       {all, good(), shown(clients), mine, true, ""},
		"the server's alone":         {shows, good(), nil, mine, true, ""},
		"none":                       {all, good(), nil, mine, false, "certificate required"},
		"another's":                  {all, good(), shown(stranger), mine, false, "unknown certificate authority"},
		"one the server will not":    {all, good(), shown(clients), stranger, false, ""},
		"no authority":               {all, without(clientCARef, ""), shown(clients), mine, false, ""},
		"no authority in it":         {all, without(clientCARef, "nothing"), shown(clients), mine, false, ""},
		"no key of its own":          {all, without(ownKeyRef, ""), shown(clients), mine, false, ""},
		"another's key":              {all, without(ownKeyRef, own.key), shown(clients), mine, false, ""},
		"an authority without TLS":   {orphan, good(), shown(clients), mine, false, ""},
		"a certificate without TLS":  {policy.TLSSecrets{OwnCertificate: ownCertificateRef, OwnKey: ownKeyRef}, good(), shown(clients), mine, false, ""},
		"an authority that is empty": {all, without(clientCARef, " "), shown(clients), mine, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan int16, 100)
			r := startKafkaAt(t, server(t, func(c *net.TCPConn) {
				answerKafka(tls.Server(c, &tls.Config{
					Certificates: shown(brokers), ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: tt.broker.pool,
				}), asked)
			}), "a")
			r.enforceTLS(tt.by, tt.secrets)
			sock, err := net.Dial("tcp", r.addr)
			if err != nil && !tt.answered {
				return // refused as it connected
			}
			must(t, err)
			defer sock.Close()
			_ = sock.SetDeadline(time.Now().Add(20 * time.Second))
			c := tls.Client(sock, &tls.Config{RootCAs: own.pool, ServerName: "kafka.example", Certificates: tt.client})
			if tt.answered {
				askKafka(t, c)
				return
			}
			_, err = c.Write(kafkaFetch(1, 0))
			if err == nil {
				_, err = io.ReadAll(c)
			}
			if err == nil || !strings.Contains(err.Error(), tt.told) {
				t.Errorf("the client is told %v, want %q", err, tt.told)
			}
			if len(asked) > 0 {
				t.Error("the server was asked")
			}
			sock.Close()
			eventually(t, "the connection to end", func() bool { return r.status().Connections == 0 })
		})
	}
}
