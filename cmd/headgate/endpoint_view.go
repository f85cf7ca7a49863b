package main

import (
	"cmp"
	"fmt"
	"strings"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// endpointView is an endpoint as JSON and YAML show it.
type endpointView struct {
	Name           string            `json:"name"`
	Namespace      string            `json:"namespace"`
	ID             uint32            `json:"id"`
	Identity       uint32            `json:"identity"`
	Labels         map[string]string `json:"labels"`
	IPs            []string          `json:"ips"`
	Interface      string            `json:"interface"`
	PolicyRevision uint64            `json:"policyRevision"`

	State           string   `json:"state"`
	Detail          string   `json:"detail"`
	Ports           []string `json:"ports"`
	Netns           string   `json:"netns"`
	MAC             string   `json:"mac"`
	ServiceAccount  string   `json:"serviceAccount"`
	IdentityLabels  []string `json:"identityLabels"`
	IngressEnforced bool     `json:"ingressEnforced"`
	EgressEnforced  bool     `json:"egressEnforced"`
}

func viewEndpoint(e *agentv1.Endpoint) endpointView {
	return endpointView{
		Name: e.GetName(), Namespace: e.GetNamespace(), ID: e.GetId(), Identity: e.GetIdentity(),
		Labels: notNilMap(e.GetLabels()), IPs: notNil(e.GetIps()),
		Interface: e.GetInterface(), PolicyRevision: e.GetPolicyRevision(),
		State: e.GetState(), Detail: e.GetDetail(), Ports: notNil(e.GetPorts()), Netns: e.GetNetns(), MAC: e.GetMac(),
		ServiceAccount: e.GetServiceAccount(), IdentityLabels: notNil(e.GetIdentityLabels()),
		IngressEnforced: e.GetIngressEnforced(), EgressEnforced: e.GetEgressEnforced(),
	}
}

// notNil keeps an empty list from becoming null.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func notNilMap[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}

func joinList(list []string) string { return strings.Join(list, ",") }

func enforced(e *agentv1.Endpoint) string {
	switch {
	case e.GetIngressEnforced() && e.GetEgressEnforced():
		return "both"
	case e.GetIngressEnforced():
		return "ingress"
	case e.GetEgressEnforced():
		return "egress"
	}
	return "none"
}

func stateOf(e *agentv1.Endpoint) string {
	if e.GetDetail() == "" {
		return e.GetState()
	}
	return fmt.Sprintf("%s: %s", e.GetState(), e.GetDetail())
}

func compareNames(ns1, name1, ns2, name2 string) int {
	return cmp.Or(cmp.Compare(ns1, ns2), cmp.Compare(name1, name2))
}
