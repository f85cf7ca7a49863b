package proxy

import (
	"fmt"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/policy"
)

func setToProto(set *policy.L7Set) *proxyv1.L7Set {
	if set == nil {
		return &proxyv1.L7Set{}
	}
	p := &proxyv1.L7Set{
		Protocol: uint32(set.Protocol), Observed: set.Observed,
		Http: each(set.HTTP, httpToProto), Grpc: each(set.GRPC, grpcToProto), Kafka: each(set.Kafka, kafkaToProto),
		Dns: each(set.DNS, dnsToProto), Tls: each(set.TLS, tlsToProto),
	}
	if d := set.Deny; d != nil {
		p.Deny = &proxyv1.L7Rules{
			Protocol: uint32(d.Protocol), Http: each(d.HTTP, httpToProto), Grpc: each(d.GRPC, grpcToProto), Kafka: each(d.Kafka, kafkaToProto),
			Dns: each(d.DNS, dnsToProto), Tls: each(d.TLS, tlsToProto),
		}
	}
	if r := set.DenyResponse; r != nil {
		p.DenyResponse = &proxyv1.DenyResponse{Status: uint32(r.Status), Body: r.Body}
	}
	if set.Audit != nil {
		p.Audit = setToProto(set.Audit)
	}
	p.Ends = endsToProto(set.Ends)
	return p
}

func setFromProto(p *proxyv1.L7Set) (*policy.L7Set, error) {
	set := &policy.L7Set{
		Observed: p.Observed, Ends: endsFromProto(p.Ends), HTTP: each(p.Http, httpFromProto), GRPC: each(p.Grpc, grpcFromProto), Kafka: each(p.Kafka, kafkaFromProto),
		DNS: each(p.Dns, dnsFromProto), TLS: each(p.Tls, tlsFromProto),
	}
	var err error
	if set.Protocol, err = protocolFromProto(p.Protocol); err != nil {
		return nil, err
	}
	if d := p.Deny; d != nil {
		set.Deny = &policy.L7Rules{HTTP: each(d.Http, httpFromProto), GRPC: each(d.Grpc, grpcFromProto), Kafka: each(d.Kafka, kafkaFromProto), DNS: each(d.Dns, dnsFromProto), TLS: each(d.Tls, tlsFromProto)}
		if set.Deny.Protocol, err = protocolFromProto(d.Protocol); err != nil {
			return nil, err
		}
	}
	if r := p.DenyResponse; r != nil {
		set.DenyResponse = &policy.DenyResponse{Status: int(r.Status), Body: r.Body}
	}
	if p.Audit != nil {
		if set.Audit, err = setFromProto(p.Audit); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	return set, nil
}

func protocolFromProto(n uint32) (policy.Protocol, error) {
	if n > 0xff {
		return policy.ProtocolNone, fmt.Errorf("there is no protocol %d", n)
	}
	return policy.Protocol(n), nil
}

// each converts a list; an empty one stays nil.
func each[A, B any](list []A, convert func(A) B) (to []B) {
	for _, v := range list {
		to = append(to, convert(v))
	}
	return to
}

func httpToProto(h policy.HTTPRule) *proxyv1.HTTPRule {
	return &proxyv1.HTTPRule{
		Method: h.Method, Path: h.Path, Host: h.Host, Ref: refToProto(h.Ref),
		Headers: each(h.Headers, func(r policy.HeaderRule) *proxyv1.Header {
			return &proxyv1.Header{Name: r.Name, Value: r.Value}
		}),
		Edits: each(h.Edits, func(e policy.HeaderEdit) *proxyv1.HeaderEdit {
			return &proxyv1.HeaderEdit{Name: e.Name, Value: e.Value, Action: uint32(e.Action), Secret: secretToProto(e.Secret)}
		}),
		Secrets: each(h.Secrets, func(s policy.SecretHeader) *proxyv1.SecretHeader {
			return &proxyv1.SecretHeader{Name: s.Name, Secret: secretToProto(&s.Secret), Value: s.Value}
		}),
	}
}

func httpFromProto(p *proxyv1.HTTPRule) policy.HTTPRule {
	return policy.HTTPRule{
		Method: p.Method, Path: p.Path, Host: p.Host, Ref: refFromProto(p.Ref),
		Headers: each(p.Headers, func(h *proxyv1.Header) policy.HeaderRule {
			return policy.HeaderRule{Name: h.Name, Value: h.Value}
		}),
		Edits: each(p.Edits, func(e *proxyv1.HeaderEdit) policy.HeaderEdit {
			return policy.HeaderEdit{
				HeaderRule: policy.HeaderRule{Name: e.Name, Value: e.Value},
				Action:     policy.HeaderAction(min(e.Action, 0xff)), Secret: secretFromProto(e.Secret),
			}
		}),
		Secrets: each(p.Secrets, func(s *proxyv1.SecretHeader) policy.SecretHeader {
			return policy.SecretHeader{Name: s.Name, Value: s.Value, Secret: policy.SecretRef{
				Namespace: s.Secret.GetNamespace(), Name: s.Secret.GetName(),
			}}
		}),
	}
}

func grpcToProto(g policy.GRPCRule) *proxyv1.GRPCRule {
	return &proxyv1.GRPCRule{Service: g.Service, Method: g.Method, Ref: refToProto(g.Ref)}
}

func grpcFromProto(p *proxyv1.GRPCRule) policy.GRPCRule {
	return policy.GRPCRule{Service: p.Service, Method: p.Method, Ref: refFromProto(p.Ref)}
}

func tlsToProto(r policy.TLSRule) *proxyv1.TLSRule {
	return &proxyv1.TLSRule{ServerName: r.ServerName, Ref: refToProto(r.Ref)}
}

func tlsFromProto(p *proxyv1.TLSRule) policy.TLSRule {
	return policy.TLSRule{ServerName: p.ServerName, Ref: refFromProto(p.Ref)}
}

func refToProto(r policy.Ref) *proxyv1.Ref { return &proxyv1.Ref{Policy: r.Policy, Path: r.Path} }

func secretToProto(s *policy.SecretRef) *proxyv1.SecretRef {
	if s == nil {
		return nil
	}
	return &proxyv1.SecretRef{Namespace: s.Namespace, Name: s.Name, Key: s.Key}
}

func secretFromProto(p *proxyv1.SecretRef) *policy.SecretRef {
	if p == nil {
		return nil
	}
	return &policy.SecretRef{Namespace: p.Namespace, Name: p.Name, Key: p.Key}
}

func endsToProto(e *policy.TLSSecrets) *proxyv1.TLSSecrets {
	if e == nil {
		return nil
	}
	return &proxyv1.TLSSecrets{
		Certificate: secretToProto(&e.Certificate), PrivateKey: secretToProto(&e.PrivateKey), TrustedCa: secretToProto(&e.TrustedCA), Conflict: e.Conflict,
		ClientCa: secretToProto(&e.ClientCA), OwnCertificate: secretToProto(&e.OwnCertificate), OwnKey: secretToProto(&e.OwnKey),
	}
}

func endsFromProto(p *proxyv1.TLSSecrets) *policy.TLSSecrets {
	if p == nil {
		return nil
	}
	ref := func(p *proxyv1.SecretRef) policy.SecretRef {
		return policy.SecretRef{Namespace: p.GetNamespace(), Name: p.GetName(), Key: p.GetKey()}
	}
	return &policy.TLSSecrets{
		Certificate: ref(p.Certificate), PrivateKey: ref(p.PrivateKey), TrustedCA: ref(p.TrustedCa), Conflict: p.Conflict,
		ClientCA: ref(p.ClientCa), OwnCertificate: ref(p.OwnCertificate), OwnKey: ref(p.OwnKey),
	}
}
