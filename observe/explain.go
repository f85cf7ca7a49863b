package observe

import (
	"sync"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/policy"
)

// Explanation is what Hubble's Flow has no field for. It travels in
// Flow.extensions as a google.protobuf.Struct with the keys "rule", "nearest",
// "detail" and "reason"; empty ones are absent.
type Explanation struct {
	Rule    string // that decided: "default/rule1 ingress[0].toPorts[0].rules.http[1]"
	Nearest string // that came nearest, when none decided
	Detail  string // what would have had to differ, in words
	Reason  string // the drop reason in words
}

// Explain reads the explanation of a flow; the zero Explanation if it has none.
func Explain(f *flowpb.Flow) Explanation {
	var s structpb.Struct
	ext := f.GetExtensions()
	if ext == nil || ext.UnmarshalTo(&s) != nil {
		return Explanation{}
	}
	get := func(key string) string { return s.GetFields()[key].GetStringValue() }
	return Explanation{Rule: get("rule"), Nearest: get("nearest"), Detail: get("detail"), Reason: get("reason")}
}

func explanationOf(r *Record) Explanation {
	e := Explanation{Detail: wire(r.Detail, maxDetail)}
	if r.Rule != (policy.Ref{}) {
		e.Rule = wire(r.Rule.String(), maxDetail)
	}
	if r.Nearest != (policy.Ref{}) {
		e.Nearest = wire(r.Nearest.String(), maxDetail)
	}
	if r.Reason != ReasonNone {
		e.Reason = r.Reason.String()
	}
	return e
}

// explanations remembers encoded explanations: a node has few rules and many flows.
type explanations struct {
	mu    sync.RWMutex
	known map[Explanation]*anypb.Any
}

const maxExplanations = 1024

// encode returns an Any that is shared between flows and must not be changed.
func (x *explanations) encode(e Explanation) *anypb.Any {
	if e == (Explanation{}) {
		return nil
	}
	x.mu.RLock()
	a := x.known[e]
	x.mu.RUnlock()
	if a != nil {
		return a
	}
	a = e.encode()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.known == nil || len(x.known) >= maxExplanations {
		x.known = make(map[Explanation]*anypb.Any)
	}
	x.known[e] = a
	return a
}

func (e Explanation) encode() *anypb.Any {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, 4)}
	put := func(key, value string) {
		if value != "" {
			s.Fields[key] = structpb.NewStringValue(value)
		}
	}
	put("rule", e.Rule)
	put("nearest", e.Nearest)
	put("detail", e.Detail)
	put("reason", e.Reason)
	a, err := anypb.New(s)
	if err != nil { // strings that are valid UTF-8 always encode
		return nil
	}
	return a
}
