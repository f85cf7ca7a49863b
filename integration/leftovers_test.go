package integration

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/redirect"
)

// checkNothingLeft looks for what headgate made and should have taken away.
func (n *node) checkNothingLeft(t *testing.T) {
	t.Helper()
	err := n.do(func() error { return errors.Join(strangeLinks(n.links), strangeRules()) })
	if err != nil {
		t.Errorf("on the node after cleanup: %v", err)
	}
	for _, w := range n.workloads {
		err := w.do(func() error { return strangeLinks(w.born) })
		if err != nil && !errors.Is(err, errNamespaceGone) {
			t.Errorf("in the namespace of %s after cleanup: %v", w.name, err)
		}
	}
	for _, pid := range processes() {
		var st unix.Stat_t
		if pid != os.Getpid() && running(pid) && unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) == nil && st.Ino == n.inode {
			t.Errorf("process %d is left after cleanup: %s", pid, commandLine(pid))
		}
	}
	if root, err := bpf.CgroupRoot(); err == nil {
		if users, err := bpf.CgroupUsers(root); err != nil || users[n.inode] {
			t.Errorf("programs are left on control group %s after cleanup: %v", root, err)
		}
	}
	for _, dir := range []string{n.run(), n.state()} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		t.Errorf("directory %s is left after cleanup, with %v", dir, entries)
	}
}

func strangeLinks(known []string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if !slices.Contains(known, l.Attrs().Name) {
			err = errors.Join(err, fmt.Errorf("interface %s is left", l.Attrs().Name))
		}
		attached, asked := bpf.AttachedDevice(l.Attrs().Index)
		if err = errors.Join(err, asked); attached {
			err = errors.Join(err, fmt.Errorf("programs are left on interface %s", l.Attrs().Name))
		}
	}
	return err
}

func strangeRules() error {
	var errs error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := netlink.RuleList(family)
		errs = errors.Join(errs, err)
		for _, r := range rules {
			if r.Mark != 0 || r.Table == redirect.Table {
				errs = errors.Join(errs, fmt.Errorf("routing rule %v is left", r))
			}
		}
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: redirect.Table}, netlink.RT_FILTER_TABLE)
		errs = errors.Join(errs, err)
		for _, r := range routes {
			errs = errors.Join(errs, fmt.Errorf("route %v is left", r))
		}
	}
	return errs
}
