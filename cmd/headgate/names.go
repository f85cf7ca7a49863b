package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/cnp"
	"github.com/headgate/headgate/policy/knp"
)

const defaultNamespace = "default"

// splitName reads "namespace/name" or "name".
func splitName(arg string) (namespace, name string, err error) {
	namespace, name, found := strings.Cut(arg, "/")
	if !found {
		namespace, name = defaultNamespace, arg
	}
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return "", "", usagef("%q is not a name: write NAME or NAMESPACE/NAME", arg)
	}
	return namespace, name, nil
}

// namespaced reads a name that may be in a namespace, beside a --namespace.
func namespaced(c *cobra.Command, arg, flag string) (namespace, name string, err error) {
	namespace, name, err = splitName(arg)
	if err != nil {
		return "", "", err
	}
	if name == arg {
		return flag, name, nil
	}
	if c.Flags().Changed("namespace") && namespace != flag {
		return "", "", usagef("the name is in namespace %q, --namespace says %q: write one of them", namespace, flag)
	}
	return namespace, name, nil
}

// shortName is what people would type.
func shortName(namespace, name string) string {
	if namespace == defaultNamespace {
		return name
	}
	return namespace + "/" + name
}

func endpointName(arg string) (*agentv1.EndpointName, error) {
	namespace, name, err := splitName(arg)
	if err != nil {
		return nil, err
	}
	return &agentv1.EndpointName{Namespace: namespace, Name: name}, nil
}

// kinds are the policy kinds, each with the short names people type.
func kinds() map[string][]string {
	return map[string][]string{
		cnp.KindNetworkPolicy:     {"ciliumnetworkpolicies", "cnp"},
		cnp.KindClusterwidePolicy: {"ciliumclusterwidenetworkpolicies", "ccnp"},
		cnp.KindCIDRGroup:         {"ciliumcidrgroups", "ccg"},
		knp.Kind:                  {"networkpolicies", "netpol"},

		policy.KindEnvoyConfig:            {"ciliumenvoyconfigs", "cec"},
		policy.KindClusterwideEnvoyConfig: {"ciliumclusterwideenvoyconfigs", "ccec"},
	}
}

func kindNames() []string { return slices.Sorted(maps.Keys(kinds())) }

func clusterwide(kind string) bool {
	return kind == cnp.KindClusterwidePolicy || kind == cnp.KindCIDRGroup || kind == policy.KindClusterwideEnvoyConfig
}

// policyKey reads a KIND and a [NAMESPACE/]NAME.
func policyKey(kindArg, nameArg string) (*agentv1.PolicyKey, error) {
	kind := ""
	for full, short := range kinds() {
		if strings.EqualFold(full, kindArg) || slices.Contains(short, strings.ToLower(kindArg)) {
			kind = full
		}
	}
	if kind == "" {
		return nil, usagef("unknown kind %q: write one of %s", kindArg, strings.Join(kindNames(), ", "))
	}
	if clusterwide(kind) {
		if nameArg == "" || strings.Contains(nameArg, "/") {
			return nil, usagef("%q is not a name of a %s: it has no namespace, write NAME", nameArg, kind)
		}
		return &agentv1.PolicyKey{Kind: kind, Name: nameArg}, nil
	}
	namespace, name, err := splitName(nameArg)
	if err != nil {
		return nil, err
	}
	return &agentv1.PolicyKey{Kind: kind, Namespace: namespace, Name: name}, nil
}

func keyName(k *agentv1.PolicyKey) string {
	if k.GetNamespace() == "" {
		return k.GetName()
	}
	return k.GetNamespace() + "/" + k.GetName()
}

// parseLabels reads KEY=VALUE arguments.
func parseLabels(args []string) (map[string]string, error) {
	labels := make(map[string]string, len(args))
	for _, a := range args {
		key, value, ok := strings.Cut(a, "=")
		if !ok || key == "" {
			return nil, usagef("%q is not a label: write KEY=VALUE", a)
		}
		if old, twice := labels[key]; twice && old != value {
			return nil, usagef("label %q is given twice, as %q and %q", key, old, value)
		}
		labels[key] = value
	}
	return labels, nil
}

// parseLabelChanges reads KEY=VALUE to set and KEY- to remove.
func parseLabelChanges(args []string) (set map[string]string, remove []string, err error) {
	var pairs []string
	for _, a := range args {
		if key, ok := strings.CutSuffix(a, "-"); ok && key != "" && !strings.Contains(a, "=") {
			remove = append(remove, key)
			continue
		}
		pairs = append(pairs, a)
	}
	set, err = parseLabels(pairs)
	if err != nil {
		return nil, nil, err
	}
	for _, key := range remove {
		if _, both := set[key]; both {
			return nil, nil, usagef("label %q is both set and removed", key)
		}
	}
	return set, remove, nil
}

func checkAddress(arg string) error {
	a, err := netip.ParseAddr(arg)
	if err != nil || a.Zone() != "" {
		return usagef("%q is not an IP address", arg)
	}
	return nil
}

// checkPort wants NAME=80/TCP.
func checkPort(arg string) error {
	name, rest, ok := strings.Cut(arg, "=")
	number, proto, ok2 := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	known := slices.Contains([]string{"TCP", "UDP", "SCTP"}, strings.ToUpper(proto))
	if !ok || !ok2 || name == "" || err != nil || n == 0 || !known {
		return usagef("%q is not a named port: write NAME=PORT/PROTOCOL, such as http=80/TCP", arg)
	}
	return nil
}

// joinLabels writes labels as people read them, sorted.
func joinLabels(labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for k, v := range labels {
		pairs = append(pairs, fmt.Sprintf("%s=%s", k, v))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
