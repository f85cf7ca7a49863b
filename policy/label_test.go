package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestLabels(t *testing.T) {
	l, err := NewLabels(Label{"k8s", "org", "empire"}, Label{"reserved", "host", ""}, Label{"k8s", "org", "empire"}, Label{"other", "org", "rebels"})
	if err != nil {
		t.Fatal(err)
	}
	if got := l.String(); got != "reserved:host,k8s:org=empire,other:org=rebels" {
		t.Error(got)
	}
	if !slices.Equal(l.Strings(), strings.Split(l.String(), ",")) || l.Len() != 3 {
		t.Error(l.Strings())
	}
	if v, ok := l.Get("k8s", "org"); !ok || v != "empire" {
		t.Error(v, ok)
	}
	if !l.Has(SourceAny, "host") || l.Has("k8s", "host") || l.Has("k8s", "orgs") {
		t.Error("Has")
	}
	if _, err := NewLabels(Label{"k8s", "a", "1"}, Label{"k8s", "a", "2"}); err == nil {
		t.Error("two values for one key")
	}
	if _, err := NewLabels(Label{SourceAny, "a", "1"}); err == nil {
		t.Error("a label of any source")
	}
}

func TestEndpointLabels(t *testing.T) {
	l, err := EndpointLabels("prod", "web", "c1", map[string]string{"kubernetes.io/metadata.name": "prod"}, map[string]string{"app": "x", KeyCluster: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"k8s:app=x",
		"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=prod",
		"k8s:io.cilium.k8s.policy.cluster=c1",
		"k8s:io.cilium.k8s.policy.serviceaccount=web",
		"k8s:io.kubernetes.pod.namespace=prod",
	}
	if !slices.Equal(l.Strings(), want) {
		t.Error(l.Strings())
	}
	l, err = EndpointLabels("", "", "", nil, nil)
	if err != nil || l.String() != "k8s:io.cilium.k8s.policy.cluster=default,k8s:io.kubernetes.pod.namespace=default" {
		t.Error(l, err)
	}
}

// TestLabelsCannotBeSpoofed: a workload's own labels cannot put it in another's
// namespace, service account or cluster (CVE-2023-39347).
func TestLabelsCannotBeSpoofed(t *testing.T) {
	for key, value := range map[string]string{
		KeyNamespace:                           "kube-system",
		KeyServiceAccount:                      "admin",
		KeyCluster:                             "other",
		"io.cilium.k8s.namespace.labels.team":  "a",
		"io.cilium.k8s.namespace.labels.other": "x",
		"io.cilium.k8s.anything":               "x",
	} {
		if l, err := EndpointLabels("default", "", "", map[string]string{"team": "b"}, map[string]string{key: value}); err == nil {
			t.Errorf("%s=%s is accepted: %s", key, value, l)
		}
	}
}

func TestLabelSyntax(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, key := range []string{"", "a b", "-a", "a-", "A/b", "/a", "a/", "a/b/c", "a,b", "a=b", "k8s:a", long, "ä"} {
		if ValidateLabelKey(key) == nil {
			t.Errorf("key %q is valid", key)
		}
	}
	for _, key := range []string{"a", "A_b.c-d", "example.com/A", "io.kubernetes.pod.namespace"} {
		if err := ValidateLabelKey(key); err != nil {
			t.Error(err)
		}
	}
	for _, v := range []string{"a,b", "a b", "-", "a=b", "a\nb", long} {
		if ValidateLabelValue(v) == nil {
			t.Errorf("value %q is valid", v)
		}
	}
	for _, name := range []string{"", "A", "a_b", "-a", "a..b", strings.Repeat("a.", 130) + "a"} {
		if ValidateName(name) == nil {
			t.Errorf("name %q is valid", name)
		}
	}
	if ValidateNamespace("a.b") == nil || ValidateNamespace("a-b") != nil {
		t.Error("namespace")
	}
}
