package policy

import (
	"fmt"
	"slices"
)

// Judge answers for an L7Set. It may be used from many goroutines at once.
type Judge interface{ Decide(Request) Decision }

// CompileSet makes a set answer requests of whatever protocol it has rules for.
// It fails if it cannot judge every rule: a rule left out would not be a smaller
// set but a wrong one.
func CompileSet(set *L7Set) (Judge, error) {
	j := &setJudge{protocol: set.Protocol, response: set.DenyResponse, ends: set.Ends != nil}
	var err error
	if j.allow, err = compileJudge(&L7Rules{
		Protocol: set.Protocol, HTTP: set.HTTP, GRPC: set.GRPC, Kafka: set.Kafka, DNS: set.DNS, TLS: set.TLS,
	}, false); err != nil {
		return nil, err
	}
	if set.Audit != nil {
		if j.audit, err = CompileSet(set.Audit); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	if set.Deny == nil {
		return j, nil
	}
	if set.Deny.family() != set.Protocol {
		return nil, fmt.Errorf("l7 set: rules that deny %s beside rules that allow %s", set.Deny.Protocol, set.Protocol)
	}
	j.deny, err = compileJudge(set.Deny, true)
	return j, err
}

// setJudge asks the denies first.
type setJudge struct {
	protocol    Protocol
	allow, deny *rulesJudge // deny may be nil
	response    *DenyResponse
	audit       Judge // may be nil
	ends        bool  // TLS ends before the rules read
}

// Decide implements Judge. What the set does not know is denied.
func (j *setJudge) Decide(request Request) Decision {
	d := j.decide(request)
	if d.Verdict != Allow {
		d.Response = j.response
		return d
	}
	if j.audit != nil {
		if a := j.audit.Decide(request); a.Verdict != Allow {
			denial := a
			d.Audit = &denial
		}
	}
	return d
}

func (j *setJudge) decide(request Request) Decision {
	if j.protocol == ProtocolListener {
		return Decision{Verdict: Allow, Reason: "a listener of its own gets the connection, and may do what it likes with it"}
	}
	if j.deny != nil {
		if d, denied := j.deny.denies(request); denied {
			return Decision{Rule: d.Rule, Reason: "a rule denies such requests"}
		}
	}
	d, known := j.allow.decide(request)
	if _, hello := request.(*TLSRequest); hello && !known && j.ends {
		return Decision{Verdict: Allow, Reason: "TLS ends here whatever the name"}
	}
	if !known {
		return Decision{Reason: fmt.Sprintf("a %s request where the rules are for %s", request.Protocol(), j.protocol)}
	}
	return d
}

// rulesJudge says which rule matches, as an allow.
type rulesJudge struct {
	protocol Protocol
	http     *L7Judge
	hasHTTP  bool // whether it has a rule
	grpc     []GRPCRule
	kafka    []KafkaRule
	dns      dnsIndex
	tls      dnsIndex // of server names
}

// compileJudge compiles rules that allow, or rules that deny. A header whose
// value is in a secret is not known here: to allow it must never match, to deny
// it must only be there.
func compileJudge(rules *L7Rules, deny bool) (*rulesJudge, error) {
	j := &rulesJudge{protocol: rules.family(), grpc: rules.GRPC, kafka: rules.Kafka}
	var err error
	switch j.protocol {
	case ProtocolHTTP:
		http := withoutSecrets(rules.HTTP, deny)
		j.hasHTTP = len(http) > 0
		if deny {
			j.http, err = compileDeny(http)
		} else {
			j.http, err = CompileL7(&L7Set{Protocol: ProtocolHTTP, HTTP: http})
		}
	case ProtocolDNS:
		j.dns, err = newDNSIndex(rules.DNS)
	case ProtocolKafka, ProtocolTLS, ProtocolListener:
	default:
		return nil, fmt.Errorf("l7 set: rules for %s cannot be judged", rules.Protocol)
	}
	if err != nil {
		return nil, err
	}
	j.tls, err = newTLSIndex(rules.TLS)
	return j, err
}

func withoutSecrets(rules []HTTPRule, deny bool) []HTTPRule {
	var readable []HTTPRule
	for _, r := range rules {
		unknown := slices.ContainsFunc(r.Secrets, func(s SecretHeader) bool { return s.Value == "" })
		if unknown && !deny {
			continue
		}
		for _, s := range r.Secrets {
			r.Headers = append(r.Headers[:len(r.Headers):len(r.Headers)], HeaderRule{Name: s.Name, Value: s.Value})
		}
		readable = append(readable, r)
	}
	return readable
}

// decide reports also whether there are rules for such requests at all.
func (j *rulesJudge) decide(request Request) (Decision, bool) {
	switch r := request.(type) {
	case *HTTPRequest:
		if j.protocol == ProtocolHTTP {
			return j.decideHTTP(r), true
		}
	case *GRPCRequest:
		if j.protocol == ProtocolHTTP {
			return j.decideGRPC(r), true
		}
	case *KafkaRequest:
		if j.protocol == ProtocolKafka {
			return j.decideKafka(r), true
		}
	case *DNSRequest:
		if j.protocol == ProtocolDNS {
			return j.decideDNS(r), true
		}
	case *TLSRequest:
		if j.protocol == ProtocolTLS || len(j.tls.rules) > 0 {
			return j.decideTLS(r), true
		}
	}
	return Decision{}, false
}
