package redirect

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// InstallRules makes the kernel deliver packets that the gate marked for the proxy
// to this machine, whatever their destination. Without the rule they go nowhere.
func InstallRules() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback device: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring the loopback device up: %w", err)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if err := netlink.RouteReplace(localRoute(family, lo.Attrs().Index)); err != nil {
			return fmt.Errorf("route packets for the proxy: %w", err)
		}
		if err := addRule(family); err != nil {
			return fmt.Errorf("add the routing rule for the proxy: %w", err)
		}
	}
	return nil
}

// RemoveRules takes back what InstallRules did.
func RemoveRules() error {
	var errs error
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback device: %w", err)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		errs = errors.Join(errs, ignoreGone(netlink.RuleDel(rule(family))),
			ignoreGone(netlink.RouteDel(localRoute(family, lo.Attrs().Index))))
	}
	return errs
}

func rule(family int) *netlink.Rule {
	mask := uint32(MarkMask)
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.Mark, r.Mask = family, RulePriority, Table, MarkToProxy, &mask
	return r
}

func addRule(family int) error {
	rules, err := netlink.RuleList(family)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.Table == Table && r.Mark == MarkToProxy && r.Priority == RulePriority {
			return nil
		}
	}
	return netlink.RuleAdd(rule(family))
}

func localRoute(family, lo int) *netlink.Route {
	all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if family == unix.AF_INET6 {
		all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &netlink.Route{
		Family: family, LinkIndex: lo, Dst: all, Table: Table,
		Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
	}
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	return err
}
