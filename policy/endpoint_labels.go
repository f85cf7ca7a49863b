package policy

import (
	"fmt"
	"strings"
)

// Keys of the labels that say where a workload runs. Their source is SourceK8s.
const (
	KeyNamespace            = "io.kubernetes.pod.namespace"
	KeyCluster              = "io.cilium.k8s.policy.cluster"
	KeyServiceAccount       = "io.cilium.k8s.policy.serviceaccount"
	PrefixOfNamespaceLabels = "io.cilium.k8s.namespace.labels."

	prefixOfDerivedKeys = "io.cilium.k8s."
)

// What an endpoint belongs to when nobody says so.
const (
	DefaultNamespace = "default"
	DefaultCluster   = "default"
)

// EndpointLabels returns the labels that make the identity of a workload: its
// own, and those that say where it runs. A workload that labels itself with the
// namespace, service account or cluster of another would get that one's rights,
// so such a label is an error unless it says what is true anyway.
func EndpointLabels(namespace, serviceAccount, cluster string, namespaceLabels, labels map[string]string) (Labels, error) {
	derived, err := derivedLabels(namespace, serviceAccount, cluster, namespaceLabels)
	if err != nil {
		return Labels{}, err
	}
	list := make([]Label, 0, len(derived)+len(labels))
	for key, value := range derived {
		list = append(list, Label{SourceK8s, key, value})
	}
	for key, value := range labels {
		truth, isDerived := derived[key]
		if !isDerived && (key == KeyNamespace || strings.HasPrefix(key, prefixOfDerivedKeys)) {
			return Labels{}, fmt.Errorf("label %s=%s: this key is not a workload's to set; leave it out", key, value)
		}
		if isDerived && truth != value {
			return Labels{}, fmt.Errorf("label %s=%s: it is %q and not a workload's to set; leave it out", key, value, truth)
		}
		if err := validateLabel(key, value); err != nil {
			return Labels{}, err
		}
		list = append(list, Label{SourceK8s, key, value})
	}
	return NewLabels(list...)
}

func derivedLabels(namespace, serviceAccount, cluster string, namespaceLabels map[string]string) (map[string]string, error) {
	if namespace == "" {
		namespace = DefaultNamespace
	}
	if cluster == "" {
		cluster = DefaultCluster
	}
	if err := ValidateNamespace(namespace); err != nil {
		return nil, err
	}
	if err := ValidateLabelValue(cluster); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	derived := map[string]string{KeyNamespace: namespace, KeyCluster: cluster}
	if serviceAccount != "" {
		if err := ValidateName(serviceAccount); err != nil {
			return nil, fmt.Errorf("service account: %w", err)
		}
		derived[KeyServiceAccount] = serviceAccount
	}
	for key, value := range namespaceLabels {
		if err := validateLabel(key, value); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", namespace, err)
		}
		derived[PrefixOfNamespaceLabels+key] = value
	}
	return derived, nil
}

func validateLabel(key, value string) error {
	if err := ValidateLabelKey(key); err != nil {
		return fmt.Errorf("label key %w", err)
	}
	if err := ValidateLabelValue(value); err != nil {
		return fmt.Errorf("label %s: %w", key, err)
	}
	return nil
}
