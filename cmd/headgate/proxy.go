package main

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/proxy"
	"github.com/headgate/headgate/proxy/fqdn"
	"github.com/headgate/headgate/redirect"
)

func newProxyCommand() *cobra.Command {
	var runDir, format string
	var limits proxyLimits
	c := &cobra.Command{
		Use:   "proxy",
		Short: "Run the proxy of this node; the agent starts it",
		Long: `Run headgate's own proxy: it carries the connections that the datapath hands it and
judges each request. The agent starts it, with sockets and maps already open and no
privilege but that of transparent sockets; started by hand it says what it misses. It
outlives the agent. 'headgate cleanup' ends it.`,
		Args: wantArgs(),
		RunE: func(c *cobra.Command, _ []string) error { return runProxy(c.Context(), format, &limits) },
	}
	c.Flags().StringVar(&runDir, "run-dir", defaultRunDir, "run directory of the agent that started it, to tell processes apart")
	c.Flags().StringVar(&format, "log-format", "text", "text or json")
	limits.addTo(c.Flags())
	return c
}

func runProxy(ctx context.Context, format string, limits *proxyLimits) error {
	log, err := newLogger(format)
	if err != nil {
		return err
	}
	api, err := proxy.InheritedListener()
	if err != nil {
		return usagef("the agent starts the proxy, with what it needs already open: %v", err)
	}
	ct, err := bpf.OpenConntrack([6]int{
		proxy.DescriptorTCPMap, proxy.DescriptorAnyMap, proxy.DescriptorConfig, proxy.DescriptorNATMap,
		proxy.DescriptorServices,
		proxy.DescriptorShares,
	})
	if err != nil {
		return err
	}
	names, err := openNames(ct)
	if err != nil {
		return err
	}
	cfg := proxy.Config{
		Names:   names,
		Version: buildVersion().String(), Layout: layoutWith(bpf.Layout, limits), Logger: log, API: api,
		Connections: connections{ct}, Collector: collector{ct}, Limits: limits.limits(),
		Datagrams: connections{ct}, Senders: [2]int{proxy.DescriptorSender4, proxy.DescriptorSender6}, DNS: limits.dns(),
	}
	if cfg.Shortcut, cfg.ShortcutTurn, err = openShortcut(limits, log); err != nil {
		return err
	}
	cfg.Injector, err = openInjector()
	if err != nil {
		return err
	}
	if waits, err := redirect.OpenTimeWaits(); err == nil {
		cfg.TimeWaits = waits
	} else { // ports that are used again find nobody for a minute, but nothing passes unjudged
		log.Warn("cannot end TIME_WAIT of proxied connections", "error", err)
	}
	return proxy.Run(ctx, cfg)
}

// openShortcut takes the way by which questions and answers go on without the proxy, if they are to.
func openShortcut(limits *proxyLimits, log *slog.Logger) (proxy.Shortcut, proxy.Turn, error) {
	q, err := bpf.OpenQuestions([5]int{
		proxy.DescriptorKnown, proxy.DescriptorTold, proxy.DescriptorRounds, proxy.DescriptorAsked, proxy.DescriptorAnswered,
	})
	if err != nil {
		return nil, nil, err
	}
	turn, err := proxy.OpenTurn(proxy.DescriptorState, "shortcut.lock")
	if err != nil {
		log.Error("questions take no shortcut: nobody could say whose turn it is to record them", "error", err)
		return closedShortcut{q}, never{}, nil
	}
	if !limits.shortcut {
		return closedShortcut{q}, turn, nil
	}
	return q, turn, nil
}

// closedShortcut has every question come to the proxy, whatever one before it has said, and takes
// up those that went on by that one's leave.
type closedShortcut struct{ *bpf.Questions }

// never is nobody's turn.
type never struct{}

func (never) Take() bool { return false }
func (never) Leave()     {}

func (c closedShortcut) SetKnownRound(uint64) error { return c.Questions.SetKnownRound(0) }
func (c closedShortcut) SetToldRound(uint64) error  { return c.Questions.SetToldRound(0) }
func (c closedShortcut) Longest() int               { return 0 }
func (c closedShortcut) Tell(uint64, uint16, []byte, uint16, []netip.Addr, []policy.Identity, time.Duration, time.Duration) error {
	return nil
}

// openInjector takes the device by which datagrams go to endpoints, if the agent has given it.
func openInjector() (*proxy.Injector, error) {
	ends, err := bpf.OpenEndpoints(proxy.DescriptorEnds)
	if err != nil {
		return nil, err
	}
	if !redirect.IsInjector(proxy.DescriptorInjector) {
		return nil, nil
	}
	return &proxy.Injector{Descriptor: proxy.DescriptorInjector, Here: ends.Has}, nil
}

// openNames takes what is needed to learn names. Without a place to keep them they are
// forgotten with the process.
func openNames(ct *bpf.Conntrack) (*fqdn.Config, error) {
	maps, err := bpf.OpenNames([2]int{proxy.DescriptorNames, proxy.DescriptorRules})
	if err != nil {
		return nil, err
	}
	dir, err := fqdn.OpenDir(proxy.DescriptorState)
	if err != nil {
		return nil, err
	}
	return &fqdn.Config{Maps: maps, Connections: ct, Disk: dir}, nil
}

// connections is the datapath's conntrack as the proxy asks for it.
type connections struct{ *bpf.Conntrack }

func (c connections) Lookup(source, destination netip.AddrPort) (proxy.Connection, bool) {
	return ofProxy(c.Conntrack.Lookup(source, destination))
}

func (c connections) LookupDatagrams(source, destination netip.AddrPort) (proxy.Connection, bool) {
	return ofProxy(c.Conntrack.LookupDatagrams(source, destination))
}

func ofProxy(found bpf.Connection, ok bool) (proxy.Connection, bool) {
	return proxy.Connection{
		SourceIdentity: found.SourceIdentity, DestinationIdentity: found.DestinationIdentity,
		Egress: redirect.SetNumber(found.Egress), Ingress: redirect.SetNumber(found.Ingress), Denied: found.Denied,
		Revision: found.Revision,
	}, ok && found.Redirected && !found.ProxyLeg // the proxy's own are nobody's rights
}

type collector struct{ *bpf.Conntrack }

func (c collector) Collect(ctx context.Context, _ time.Time) (int, error) {
	return c.Conntrack.Collect(ctx)
}

// layoutWith names what a proxy must have been started with to be adopted.
func layoutWith(maps string, limits *proxyLimits) string { return maps + "; " + limits.String() }
