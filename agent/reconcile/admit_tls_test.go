package reconcile

import (
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
)

// TestAdmitTLS: a backend that ends no TLS is given no rules that want it.
func TestAdmitTLS(t *testing.T) {
	ends, names := &policy.TLSSecrets{Certificate: policy.SecretRef{Name: "s"}}, []policy.TLSRule{{ServerName: "a"}}
	for name, tt := range map[string]struct {
		l7      *policy.L7Rules
		refused bool
	}{
		"none":                 {nil, false},
		"plain text":           {&policy.L7Rules{Protocol: policy.ProtocolHTTP}, false},
		"TLS before HTTP":      {&policy.L7Rules{Protocol: policy.ProtocolHTTP, Ends: ends}, true},
		"TLS before gRPC":      {&policy.L7Rules{Protocol: policy.ProtocolGRPC, Ends: ends}, true},
		"a name before":        {&policy.L7Rules{Protocol: policy.ProtocolHTTP, TLS: names}, true},
		"TLS before Kafka":     {&policy.L7Rules{Protocol: policy.ProtocolKafka, Ends: ends}, false},
		"a name alone":         {&policy.L7Rules{Protocol: policy.ProtocolTLS, TLS: names}, false},
		"TLS that is not read": {&policy.L7Rules{Protocol: policy.ProtocolTLS, Ends: ends}, false},
	} {
		e := &Engine{policies: map[string]*Policy{"k": {Policy: policy.Policy{Kind: "K", Rules: []policy.Rule{{
			Ports: []policy.PortRule{{L7: tt.l7, Ref: policy.Ref{Policy: "default/p", Path: "egress[0]"}}},
		}}}}}}
		if err := e.admitTLS(); err != nil {
			t.Errorf("%s, headgate's own proxy: %v", name, err)
		}
		e.cfg.PerRoute = func(p policy.Protocol) bool { return p == policy.ProtocolHTTP }
		err := e.admitTLS()
		if errors.Is(err, ErrRefused) != tt.refused || tt.refused && !strings.Contains(err.Error(), "default/p egress[0]") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
