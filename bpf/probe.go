package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// Need is something the datapath needs from this machine.
type Need struct {
	Name string
	Err  error // nil: it is there
	Hint string
}

// Probe tries what the datapath needs: to load it, and to attach to a device that
// is made for the purpose. It needs root.
func Probe() []Need {
	g, err := Load(Options{}, nil)
	load := Need{Name: "the kernel takes the datapath's programs", Err: err, Hint: "run as root on Linux 6.6 or newer, with CONFIG_BPF_SYSCALL, CONFIG_DEBUG_INFO_BTF"}
	if err != nil {
		return []Need{load}
	}
	defer g.Close()
	return []Need{load, {
		Name: "programs attach to network devices by TCX", Err: probeAttach(g),
		Hint: "Linux 6.6 or newer with CONFIG_NET_XGRESS, and CAP_NET_ADMIN",
	}}
}

func probeAttach(g *Gate) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "hg_check"
	dev := &netlink.Veth{LinkAttrs: attrs, PeerName: "hg_check_peer"}
	if err := netlink.LinkAdd(dev); err != nil {
		return fmt.Errorf("add a veth pair: %w", err)
	}
	defer netlink.LinkDel(dev) //nolint:errcheck // it was made here, and nothing hangs on it
	l, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		return fmt.Errorf("find the veth pair: %w", err)
	}
	err = g.AttachWorkload(l.Attrs().Index)
	if errors.Is(err, link.ErrNotSupported) {
		return fmt.Errorf("TCX is not in this kernel: %w", err)
	}
	return err
}
