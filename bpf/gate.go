package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Layout names the map layouts of this build. Two processes that share maps must
// have equal layouts.
const Layout = "1 nat1 svc1 share1 name1"

// Options are the constants of the programs and the sizes of the maps.
type Options struct {
	Gateway4, Gateway6 netip.Addr
	GatewayMAC         net.HardwareAddr // of the host side of every veth
	HostIfindex        int              // device by which packets of the host enter again
	// MaxConnections is the room for established TCP; 0: the default, 524288.
	MaxConnections int
	// MaxServiced is the room for established TCP to services; 0: the default, 524288.
	MaxServiced int
	// MaxTranslations is the room for translated established TCP; 0: the default, 524288.
	MaxTranslations int
	Masquerade      Masquerade
	// MaxPolicy is the room for policy entries; 0: the default, 1048576.
	MaxPolicy int
	// MaxNames is the room for addresses that endpoints know by names; 0: the default, 1048576.
	MaxNames int
	Sizes    Sizes
}

// Sizes of the maps that no flag changes; 0: the default. A gate that is taken over
// keeps its own.
type Sizes struct {
	Endpoints  int // addresses of workloads: 65536
	Identities int // prefixes: 512000
	Subjects   int // policy tables: 65536
	Routes     int // pairs of L7 sets: 65536
	Opening    int // half-open TCP, UDP and ICMP: 65536
	Events     int // bytes, a power of two: 4 MiB
}

// Gate is the loaded datapath.
type Gate struct {
	objs   gateObjects
	shares shares

	settings sync.Mutex // of the configuration: it is read, changed and written
}

// Load loads the programs. With the maps of a running gate they take its place;
// without, maps are made anew.
func Load(opts Options, maps *Maps) (*Gate, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise the memory lock limit: %w", err)
	}
	spec, err := loadGate()
	if err != nil {
		return nil, fmt.Errorf("read the datapath object: %w", err)
	}
	if err := setConstants(spec, opts); err != nil {
		return nil, err
	}
	setSize(spec, gateMapHgCtTcp1, opts.MaxConnections)
	setSize(spec, gateMapHgSvcNat1, opts.MaxServiced)
	setSize(spec, gateMapHgNatTcp1, opts.MaxTranslations)
	setSize(spec, gateMapHgPolicy1, opts.MaxPolicy)
	setSize(spec, gateMapHgName1, opts.MaxNames)
	for name, n := range map[string]int{
		gateMapHgEndpoint1: opts.Sizes.Endpoints, gateMapHgIpcache1: opts.Sizes.Identities, gateMapHgSubject1: opts.Sizes.Subjects,
		gateMapHgRoute1: opts.Sizes.Routes, gateMapHgCtAny1: opts.Sizes.Opening, gateMapHgEvents1: opts.Sizes.Events,
	} {
		setSize(spec, name, n)
	}
	var co ebpf.CollectionOptions
	if maps != nil {
		co.MapReplacements = maps.byName
		for name, m := range maps.byName { // sizes are those of the running gate
			if s := spec.Maps[name]; s != nil {
				s.MaxEntries = m.MaxEntries()
			}
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, co)
	if err != nil {
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			return nil, fmt.Errorf("load the datapath: the kernel's verifier refused it (is this kernel 6.6 or newer?): %w", err)
		}
		return nil, fmt.Errorf("load the datapath: %w", err)
	}
	defer coll.Close() // what is assigned is not its any more
	if err := bind(coll); err != nil {
		return nil, err
	}
	g := &Gate{}
	if err := coll.Assign(&g.objs); err != nil {
		return nil, fmt.Errorf("load the datapath: %w", err)
	}
	if g.shares, err = mapShares(g.objs.HgShare1); err != nil {
		g.objs.Close()
		return nil, err
	}
	return g, nil
}

// bind makes every program hold every map, so that a later agent finds all of them
// by whatever is attached.
func bind(coll *ebpf.Collection) error {
	for _, p := range coll.Programs {
		for name, m := range coll.Maps {
			if strings.HasPrefix(name, ".") {
				continue
			}
			if err := p.BindMap(m); err != nil {
				return fmt.Errorf("bind map %s to the datapath's programs: %w", name, err)
			}
		}
	}
	return nil
}

func setSize(spec *ebpf.CollectionSpec, name string, n int) {
	if n > 0 {
		spec.Maps[name].MaxEntries = uint32(n)
	}
}

func setConstants(spec *ebpf.CollectionSpec, o Options) error {
	var mac [6]uint8
	copy(mac[:], o.GatewayMAC)
	first, last := o.Masquerade.Ports()
	var mode uint8
	if o.Masquerade.On {
		mode = 1
	}
	for name, value := range map[string]any{
		gateVarGateway4:    toAddr(o.Gateway4),
		gateVarGateway6:    toAddr(o.Gateway6),
		gateVarGatewayMac:  mac,
		gateVarHostIfindex: uint32(o.HostIfindex),
		gateVarNatMode:     mode, gateVarNatPortFirst: first, gateVarNatPortLast: last,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s of the datapath: %w", name, err)
		}
	}
	return nil
}

// Close closes what this process holds. What is attached stays.
func (g *Gate) Close() error {
	return errors.Join(unix.Munmap(g.shares), g.objs.Close())
}

// Conntrack reads the connections of this gate.
func (g *Gate) Conntrack() *Conntrack {
	return &Conntrack{tcp: g.objs.HgCtTcp1, any: g.objs.HgCtAny1, nat: g.objs.HgNatTcp1, services: g.objs.HgSvcNat1, shares: g.shares}
}

// ConntrackMaps are the maps that a proxy needs: established TCP, the rest, the
// configuration, who holds which port of the node, the translations of services, and what workloads have of the
// room for connections, in this order.
func (g *Gate) ConntrackMaps() []*ebpf.Map {
	return []*ebpf.Map{g.objs.HgCtTcp1, g.objs.HgCtAny1, g.objs.HgConfig1, g.objs.HgNatTcp1, g.objs.HgSvcNat1, g.objs.HgShare1}
}

func toAddr(a netip.Addr) gateAddr {
	if !a.IsValid() {
		return gateAddr{}
	}
	return gateAddr{B: a.As16()}
}

func fromAddr(a gateAddr) netip.Addr { return netip.AddrFrom16(a.B).Unmap() }
