package agent

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/agent/service"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/redirect"
)

// cgroupOff says that sockets are left alone: services are translated per packet.
const cgroupOff = "off"

// startServices makes sockets of this node meet services. Without control groups
// packets of workloads do all the same, and the host's processes do not.
func (a *Agent) startServices() (*service.Kernel, error) {
	sockets, err := service.NewSockets(a.gate, a.log)
	if err != nil {
		return nil, err
	}
	kernel := &service.Kernel{Writer: service.NewWriter(a.gate), Sockets: sockets}
	root := a.cfg.CgroupRoot
	switch root {
	case cgroupOff:
		a.noCgroup = errors.New("--cgroup-root is off")
		return kernel, detachCgroups(filepath.Dir(a.store.path))
	case "":
		root, err = bpf.CgroupRoot()
	}
	if err == nil {
		// What agents left there that did not live to clean up costs every connect().
		err = errors.Join(bpf.DetachCgroup(root, nil, namespaceLives), a.gate.AttachCgroup(root))
	}
	if err != nil && a.cfg.CgroupRoot != "" {
		return nil, fmt.Errorf("translate services where sockets connect: %w", err)
	}
	if err != nil {
		a.noCgroup = err
		a.log.Warn("services are translated per packet only, and not for the host's own processes", "error", err)
		return kernel, nil
	}
	a.cgroup, a.store.cgroup = root, root
	return kernel, nil
}

// detachCgroups takes the programs off that this namespace's agent attached.
func detachCgroups(stateDir string) error {
	link, err := netlink.LinkByName(endpoint.HostDevice)
	if err != nil {
		return detachCgroup(stateDir, 0) // those of agents that are gone
	}
	return detachCgroup(stateDir, link.Attrs().Index)
}

func detachCgroup(stateDir string, ifindex int) error {
	var maps *bpf.Maps
	if ifindex != 0 {
		var err error
		if maps, err = bpf.AttachedMaps(ifindex); err == nil {
			defer maps.Close()
		} else if !errors.Is(err, bpf.ErrNotAttached) {
			return err
		}
	}
	roots := map[string]bool{}
	if found, err := bpf.CgroupRoot(); err == nil {
		roots[found] = true
	}
	if f, err := readState(filepath.Join(stateDir, "state.json")); err == nil && f.Cgroup != "" {
		roots[f.Cgroup] = true
	}
	var errs error
	for root := range roots {
		if err := bpf.DetachCgroup(root, maps, namespaceLives); err != nil && !errors.Is(err, bpf.ErrNoCgroup) {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

// names says how names are given out: on the workloads' gateways, to workloads.
func (a *Agent) names(pools []*endpoint.Pool) *redirect.Zone {
	if a.cfg.Names == nil {
		return nil
	}
	z := *a.cfg.Names
	z.Listen, z.Clients = endpoint.Gateways(pools), a.cfg.EndpointCIDRs
	return &z
}

func (a *Agent) serviceWords() string {
	n := len(a.engine.ServiceInfos())
	if a.noCgroup != nil {
		return fmt.Sprintf("%d, per packet only: %v", n, a.noCgroup)
	}
	return fmt.Sprintf("%d, where sockets connect (%s) and per packet", n, a.cgroup)
}
