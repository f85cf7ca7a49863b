package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// serviceView is a service in JSON and YAML.
type serviceView struct {
	Name       string            `json:"name"`
	Namespace  string            `json:"namespace"`
	Labels     map[string]string `json:"labels"`
	Addresses  []string          `json:"addresses"`
	Backends   []string          `json:"backends"`
	Selector   map[string]string `json:"selector"`
	TargetPort string            `json:"targetPort,omitempty"`
	NodePort   uint32            `json:"nodePort,omitempty"`
	Affinity   int64             `json:"affinitySeconds,omitempty"`
	Headless   bool              `json:"headless,omitempty"`
	Ports      []string          `json:"ports,omitempty"`
	Members    []string          `json:"members,omitempty"` // of a headless service: what its name stands for
	Fronts     []frontView       `json:"fronts"`
}

type frontView struct {
	Address  string   `json:"address"`
	Backends []string `json:"backends"`
	HostOnly bool     `json:"hostOnly,omitempty"`
}

func viewService(s *agentv1.Service) serviceView {
	v := serviceView{
		Name: s.GetName(), Namespace: s.GetNamespace(), Labels: notNilMap(s.GetLabels()), Addresses: notNil(s.GetAddresses()),
		Backends: notNil(s.GetBackends()), Selector: notNilMap(s.GetSelector()), TargetPort: s.GetTargetPort(), NodePort: s.GetNodePort(),
		Affinity: s.GetAffinityNs() / int64(time.Second), Fronts: []frontView{},
		Headless: s.GetHeadless(), Ports: s.GetPorts(), Members: s.GetMembers(),
	}
	for _, f := range s.GetFronts() {
		v.Fronts = append(v.Fronts, frontView{f.GetAddress(), notNil(f.GetBackends()), f.GetHostOnly()})
	}
	return v
}

func showServices(c *cobra.Command, list []*agentv1.Service) error {
	views := make([]serviceView, 0, len(list))
	t := newTable("NAMESPACE/NAME", "ADDRESSES", "NODE PORT", "BACKENDS", "SELECTOR", "AFFINITY")
	for _, s := range sortedServices(list) {
		views = append(views, viewService(s))
		t.row(s.GetNamespace()+"/"+s.GetName(), addressWords(s), numberOrNone(s.GetNodePort()), behind(s),
			joinLabels(s.GetSelector()), affinityWords(s))
	}
	return show(c, views, t.write)
}

func showService(c *cobra.Command, s *agentv1.Service) error {
	return show(c, viewService(s), func(w io.Writer) error {
		l := newLines()
		l.line("Name", s.GetNamespace()+"/"+s.GetName())
		l.line("Labels", joinLabels(s.GetLabels()))
		l.optional("Backends", joinList(s.GetBackends()))
		l.optional("Selector", joinLabels(s.GetSelector()))
		l.optional("Target port", s.GetTargetPort())
		l.optional("Node port", numberOrNone(s.GetNodePort()))
		l.optional("Affinity", affinityWords(s))
		l.optional("Ports", joinList(s.GetPorts()))
		if s.GetHeadless() {
			members := joinList(s.GetMembers())
			if members == "" {
				members = "nobody: its name has no address"
			}
			l.line("Headless", members)
		}
		for _, f := range s.GetFronts() {
			to := joinList(f.GetBackends())
			if to == "" {
				to = "no backend: connections are refused"
			}
			if f.GetHostOnly() {
				to += " (this machine's processes only)"
			}
			l.line(f.GetAddress(), to)
		}
		return l.write(w)
	})
}

// addressWords are the addresses of a service, "headless" if it is to have none.
func addressWords(s *agentv1.Service) string {
	if s.GetHeadless() {
		return "headless"
	}
	return joinList(s.GetAddresses())
}

// behind are all backends that new connections may meet.
func behind(s *agentv1.Service) string {
	all := slices.Clone(s.GetMembers())
	for _, f := range s.GetFronts() {
		for _, b := range f.GetBackends() {
			if !slices.Contains(all, b) {
				all = append(all, b)
			}
		}
	}
	return joinList(all)
}

func numberOrNone(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

func affinityWords(s *agentv1.Service) string {
	if s.GetAffinityNs() == 0 {
		return ""
	}
	return fmt.Sprintf("%ds", s.GetAffinityNs()/int64(time.Second))
}

func sortedServices(list []*agentv1.Service) []*agentv1.Service {
	return slices.SortedFunc(slices.Values(list), func(a, b *agentv1.Service) int {
		return compareNames(a.GetNamespace(), a.GetName(), b.GetNamespace(), b.GetName())
	})
}

func serviceNames(ctx context.Context, agent *agentConn) ([]string, error) {
	resp, err := agent.ListServices(ctx, &agentv1.ListServicesRequest{})
	var names []string
	for _, s := range sortedServices(resp.GetServices()) {
		names = append(names, shortName(s.GetNamespace(), s.GetName()))
	}
	return names, err
}

// checkServiceAddress wants IP:PORT/PROTOCOL.
func checkServiceAddress(arg string) error {
	end, proto, _ := strings.Cut(arg, "/")
	at, err := netip.ParseAddrPort(end)
	known := slices.Contains([]string{"TCP", "UDP"}, strings.ToUpper(cmp.Or(proto, "TCP")))
	if err != nil || !known || at.Port() == 0 {
		return usagef("--vip %q is not IP:PORT/PROTOCOL: write, for example, 10.96.0.10:80/TCP or [fd00:96::10]:53/UDP", arg)
	}
	return nil
}
