package main

import (
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/agent"
)

// agentFlags are the settings of an agent.
type agentFlags struct {
	dirs          dirs
	config        string
	policyDir     string
	secretsDir    string
	nodeName      string
	endpointCIDRs []string
	network       networkFlags
	policy        enforcementFlags
	observer      []string
	metrics       string
	logFormat     string
	proxyUID      uint32
	proxy         proxyLimits
	backend       string
	envoyPath     string
	envoyWorkers  int
	envoy         envoyFlags
	flowBuffer    int
	cgroupRoot    string
	dns           string
	dnsUpstreams  []string
	fqdn          nameLimits
}

func newAgentCommand() *cobra.Command {
	var f agentFlags
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent of this node, in the foreground",
		Long: `Run the agent: it loads the datapath, starts or adopts the proxy, puts in force
what is remembered and then answers on the socket in the run directory.

SIGTERM stops the agent alone. Connectivity, L3/L4 and L7 policy go on by the last
policy, and the next agent takes over without a dropped request. To take everything
out of the kernel again: 'headgate cleanup'.`,
		Example: `  headgate agent
  headgate agent --policy-dir /etc/headgate/policies --metrics-listen localhost:9964
  ip netns exec node1 headgate agent --run-dir /run/headgate-node1`,
		Args: wantArgs(),
		RunE: func(c *cobra.Command, _ []string) error { return runAgent(c, &f) },
	}
	fs := c.Flags()
	f.dirs.addTo(fs)
	fs.StringVar(&f.config, "config", "", "YAML file with the same keys as these flags")
	fs.StringVar(&f.policyDir, "policy-dir", "", "directory of YAML policies, watched")
	fs.StringVar(&f.secretsDir, "secrets-dir", "", "directory of the secrets that policies refer to, DIR/NAMESPACE/NAME[/KEY], watched")
	fs.StringVar(&f.nodeName, "node-name", "", "name of this node in flows (default: the hostname)")
	fs.StringArrayVar(&f.endpointCIDRs, "endpoint-cidr", []string{"10.210.0.0/16", "fd00:210::/64"}, "addresses for endpoints; repeatable")
	f.network.addTo(fs)
	f.policy.addTo(fs)
	fs.StringArrayVar(&f.observer, "observer-listen", nil, "address of the Hubble Observer API, unix://PATH or HOST:PORT, repeatable; off (default: unix://RUN_DIR/hubble.sock and localhost:4245)")
	fs.StringVar(&f.metrics, "metrics-listen", "", "address of the Prometheus metrics, HOST:PORT (default: off)")
	fs.StringVar(&f.logFormat, "log-format", "text", "text or json")
	fs.StringVar(&f.backend, "backend", "go", "who judges HTTP: go (headgate's own proxy) or envoy (a stock Envoy)")
	fs.StringVar(&f.envoyPath, "envoy-path", "envoy", "Envoy's program, for --backend envoy")
	f.envoy.addTo(fs)
	fs.IntVar(&f.envoyWorkers, "envoy-workers", 2, "threads of Envoy that carry connections")
	fs.IntVar(&f.flowBuffer, "flow-buffer", 16384, "how many flows are kept for 'headgate observe'")
	fs.StringVar(&f.cgroupRoot, "cgroup-root", "", "root of the control groups (cgroup2), where sockets that connect to a service get a backend; off (default: where it is mounted)")
	fs.StringVar(&f.dns, "dns", "off", "on: give workloads the names of services and endpoints, on their gateway's port 53")
	fs.StringArrayVar(&f.dnsUpstreams, "dns-upstream", nil, "IP[:PORT] that answers for other names; repeatable; off (default: those of /etc/resolv.conf)")
	fs.Uint32Var(&f.proxyUID, "proxy-uid", 0, "user and group that the proxy runs as (default: one that nobody else has)")
	f.proxy.addTo(fs)
	f.fqdn.addTo(fs)
	return c
}

func runAgent(c *cobra.Command, f *agentFlags) error {
	if f.config != "" {
		if err := readConfig(c.Flags(), f.config); err != nil {
			return err
		}
	}
	f.dirs.settle(c.Flags())
	cfg, err := f.agentConfig()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return agent.Run(ctx, cfg)
}

func (f *agentFlags) agentConfig() (agent.Config, error) {
	log, err := newLogger(f.logFormat)
	if err != nil {
		return agent.Config{}, err
	}
	if err := f.proxy.check(); err != nil {
		return agent.Config{}, err
	}
	if err := f.envoy.check(f.backend); err != nil {
		return agent.Config{}, err
	}
	proxies, err := f.backends()
	if err != nil {
		return agent.Config{}, err
	}
	cfg := agent.Config{
		Version: buildVersion().Version, RunDir: f.dirs.run, StateDir: f.dirs.state, PolicyDir: f.policyDir, SecretsDir: f.secretsDir,
		NodeName: f.nodeName, MetricsListen: f.metrics, FlowBuffer: f.flowBuffer, Logger: log,
		Backends: proxies, CgroupRoot: f.cgroupRoot,
	}
	if cfg.NameLimits, err = f.fqdn.limits(); err != nil {
		return cfg, err
	}
	if cfg.Names, err = f.names(); err != nil {
		return cfg, err
	}
	for _, s := range f.endpointCIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return cfg, usagef("--endpoint-cidr %q is not a CIDR: write, for example, 10.210.0.0/16", s)
		}
		cfg.EndpointCIDRs = append(cfg.EndpointCIDRs, p)
	}
	if err := f.network.settle(&cfg); err != nil {
		return cfg, err
	}
	switch {
	case len(f.observer) == 0:
		cfg.ObserverListen = []string{"unix://" + filepath.Join(f.dirs.run, "hubble.sock"), "localhost:4245"}
		cfg.ObserverOptional = true
	case len(f.observer) == 1 && f.observer[0] == "off":
	default:
		cfg.ObserverListen = f.observer
	}
	if err := f.policy.settle(&cfg); err != nil {
		return cfg, err
	}
	if cfg.NodeName == "" {
		cfg.NodeName, _ = os.Hostname()
	}
	return cfg, nil
}
