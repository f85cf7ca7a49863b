package main

import (
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/headgate/headgate/agent"
	"github.com/headgate/headgate/bpf"
)

// networkFlags are the settings of an agent towards other networks.
type networkFlags struct {
	devices        []string
	masquerade     string
	ports          string
	noMasquerade   []string
	remoteNodes    []string
	kubeAPIServers []string
}

func (f *networkFlags) addTo(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.devices, "device", nil, "device of this node by which other networks are reached; repeatable (default: each that is up and has an address)")
	fs.StringVar(&f.masquerade, "masquerade", "auto", "auto: other networks see this node's address in place of an endpoint's private one; off: they see the endpoint's")
	fs.StringVar(&f.ports, "masquerade-ports", "", "FIRST-LAST port in place of an endpoint's where its own is taken (default: ports that the kernel gives nobody, see ip_local_port_range)")
	fs.StringArrayVar(&f.noMasquerade, "no-masquerade-cidr", nil, "network that sees endpoints' own addresses; repeatable")
	fs.StringArrayVar(&f.remoteNodes, "remote-node", nil, "address of another node, the entity remote-node of policies; repeatable")
	fs.StringArrayVar(&f.kubeAPIServers, "kube-apiserver", nil, "address of the Kubernetes API server, the entity kube-apiserver of policies; repeatable")
}

// settle checks the flags and puts them into an agent's configuration.
func (f *networkFlags) settle(cfg *agent.Config) error {
	cfg.Devices = f.devices
	switch f.masquerade {
	case "auto":
		cfg.Masquerade.On = true
	case "off":
	default:
		return usagef("--masquerade %q: write auto or off", f.masquerade)
	}
	var err error
	if cfg.Masquerade.First, cfg.Masquerade.Last, err = f.masqueradePorts(); err != nil {
		return err
	}
	for _, s := range f.noMasquerade {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return usagef("--no-masquerade-cidr %q is not a CIDR: write, for example, 192.168.0.0/16", s)
		}
		cfg.NoMasquerade = append(cfg.NoMasquerade, p)
	}
	if cfg.RemoteNodes, err = parseAddresses("--remote-node", f.remoteNodes); err != nil {
		return err
	}
	cfg.KubeAPIServers, err = parseAddresses("--kube-apiserver", f.kubeAPIServers)
	return err
}

func parseAddresses(flag string, list []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return nil, usagef("%s %q is not an address: write, for example, 192.0.2.7", flag, s)
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}

func (f *networkFlags) masqueradePorts() (first, last uint16, err error) {
	if f.ports == "" {
		first, last = freePorts(localPortRange())
		return first, last, nil
	}
	first, last, ok := parseRange(f.ports, "-")
	if !ok {
		return 0, 0, usagef("--masquerade-ports %q: write FIRST-LAST, for example 20000-29999", f.ports)
	}
	return first, last, nil
}

// Below the first are services' ports, above the second Kubernetes' NodePorts begin.
const firstFreePort, lastFreePort = 1024, 29999

// freePorts is the larger part of what lies below and above the ports that the
// kernel gives the host's own connections; all of it where nothing does.
func freePorts(low, high uint16) (first, last uint16) {
	below, above := [2]uint16{firstFreePort, min(low-1, lastFreePort)}, [2]uint16{high + 1, 65535}
	n, m := int(below[1])-int(below[0]), int(above[1])-int(above[0])
	switch {
	case n <= 0 && (m <= 0 || above[0] == 0):
		return bpf.Masquerade{}.Ports()
	case above[0] == 0 || n >= m:
		return below[0], below[1]
	}
	return above[0], above[1]
}

// localPortRange is what the kernel gives the host's own connections.
func localPortRange() (low, high uint16) {
	const path = "/proc/sys/net/ipv4/ip_local_port_range"
	if b, err := os.ReadFile(path); err == nil {
		if low, high, ok := parseRange(strings.TrimSpace(string(b)), "\t"); ok {
			return low, high
		}
	}
	return 32768, 60999
}

func parseRange(s, separator string) (first, last uint16, ok bool) {
	a, b, found := strings.Cut(s, separator)
	x, errX := strconv.ParseUint(strings.TrimSpace(a), 10, 16)
	y, errY := strconv.ParseUint(strings.TrimSpace(b), 10, 16)
	if !found || errX != nil || errY != nil || x == 0 || x > y {
		return 0, 0, false
	}
	return uint16(x), uint16(y), true
}
