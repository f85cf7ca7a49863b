package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Netns is a network namespace in which sockets that ask for a service are given a
// backend.
type Netns struct {
	Cookie uint64 // SO_NETNS_COOKIE of its sockets
	Inode  uint64
	V4, V6 netip.Addr // by whose affinity its clients are known
	Host   bool       // the agent's own
}

const netnsHost = 1

// SetNetns makes sockets of a network namespace meet services.
func (g *Gate) SetNetns(n Netns) error {
	v := gateSvcNetns{V4: toAddr(n.V4), V6: toAddr(n.V6), Inode: n.Inode}
	if n.Host {
		v.Flags = netnsHost
	}
	if err := g.objs.HgSvcNetns1.Put(n.Cookie, v); err != nil {
		return fmt.Errorf("write network namespace %d to the datapath: %w", n.Inode, err)
	}
	return nil
}

// DeleteNetns undoes SetNetns.
func (g *Gate) DeleteNetns(cookie uint64) error {
	return ignoreMissing(g.objs.HgSvcNetns1.Delete(cookie))
}

// Netnses lists the network namespaces.
func (g *Gate) Netnses() ([]Netns, error) { return netnses(g.objs.HgSvcNetns1) }

func netnses(m *ebpf.Map) ([]Netns, error) {
	var out []Netns
	var cookie uint64
	var v gateSvcNetns
	it := m.Iterate()
	for it.Next(&cookie, &v) {
		out = append(out, Netns{Cookie: cookie, Inode: v.Inode, V4: fromAddr(v.V4), V6: fromAddr(v.V6), Host: v.Flags&netnsHost != 0})
	}
	return out, it.Err()
}

// ErrNoCgroup says that there is no hierarchy of control groups to attach to.
var ErrNoCgroup = errors.New("no cgroup2 hierarchy is mounted")

// CgroupRoot finds where the unified hierarchy of control groups is mounted.
func CgroupRoot() (string, error) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("find the control groups: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", ErrNoCgroup
}

// sockPrograms are those for control groups, by what they are attached as.
func (g *Gate) sockPrograms() map[ebpf.AttachType]*ebpf.Program {
	o := &g.objs
	return map[ebpf.AttachType]*ebpf.Program{
		ebpf.AttachCGroupInet4Connect: o.HgConnect4, ebpf.AttachCGroupInet6Connect: o.HgConnect6,
		ebpf.AttachCGroupUDP4Sendmsg: o.HgSendmsg4, ebpf.AttachCGroupUDP6Sendmsg: o.HgSendmsg6,
		ebpf.AttachCGroupUDP4Recvmsg: o.HgRecvmsg4, ebpf.AttachCGroupUDP6Recvmsg: o.HgRecvmsg6,
		ebpf.AttachCgroupInet4GetPeername: o.HgGetpeername4, ebpf.AttachCgroupInet6GetPeername: o.HgGetpeername6,
	}
}

// AttachCgroup puts the programs by which sockets meet services on a control group,
// in place of this gate's earlier ones. Answers first: a socket that was translated
// must always find back.
func (g *Gate) AttachCgroup(path string) error {
	group, err := openCgroup(path)
	if err != nil {
		return err
	}
	defer group.Close()
	mine, err := mapID(g.objs.HgSvcNetns1)
	if err != nil {
		return err
	}
	programs := g.sockPrograms()
	for _, at := range sockOrder {
		if err := attachSock(group, at, programs[at], mine); err != nil {
			return fmt.Errorf("attach the datapath to control group %s: %w", path, err)
		}
	}
	return nil
}

// sockOrder is that in which programs are attached; they are detached the other way.
var sockOrder = [...]ebpf.AttachType{
	ebpf.AttachCGroupUDP4Recvmsg, ebpf.AttachCGroupUDP6Recvmsg, ebpf.AttachCgroupInet4GetPeername, ebpf.AttachCgroupInet6GetPeername,
	ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect, ebpf.AttachCGroupUDP4Sendmsg, ebpf.AttachCGroupUDP6Sendmsg,
}

func attachSock(group *os.File, at ebpf.AttachType, p *ebpf.Program, mine ebpf.MapID) error {
	there, err := socks(group, at)
	if err != nil {
		return err
	}
	defer closeSocks(there)
	o := link.RawAttachProgramOptions{Target: int(group.Fd()), Attach: at, Program: p, Flags: unix.BPF_F_ALLOW_MULTI}
	for _, old := range there {
		if same(old.Program, p) {
			return nil // the kernel does not replace a program by itself
		}
		if old.netns == mine {
			o.Anchor = link.ReplaceProgram(old.Program)
			break
		}
	}
	return link.RawAttachProgram(o)
}

// sock is one of headgate's programs on a control group, this gate's or another's,
// with the map of namespaces that it acts in.
type sock struct {
	*ebpf.Program
	netns ebpf.MapID
}

func socks(group *os.File, at ebpf.AttachType) ([]sock, error) {
	res, err := query(link.QueryOptions{Target: int(group.Fd()), Attach: at})
	if err != nil {
		return nil, fmt.Errorf("ask what is attached: %w", err)
	}
	var out []sock
	for _, ap := range res.Programs {
		p, err := ebpf.NewProgramFromID(ap.ID)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue // it went meanwhile
			}
			closeSocks(out)
			return nil, fmt.Errorf("open attached program %d: %w", ap.ID, err)
		}
		if id, ok := netnsMapOf(p); ok {
			out = append(out, sock{p, id})
		} else {
			p.Close()
		}
	}
	return out, nil
}

func closeSocks(all []sock) {
	for _, s := range all {
		s.Close()
	}
}

// netnsMapOf finds the map of namespaces among those of a program.
func netnsMapOf(p *ebpf.Program) (ebpf.MapID, bool) {
	info, err := p.Info()
	if err != nil || !strings.HasPrefix(info.Name, "hg_") {
		return 0, false
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		mi, err := m.Info()
		m.Close()
		if err == nil && mi.Name == gateMapHgSvcNetns1 {
			return id, true
		}
	}
	return 0, false
}

// DetachCgroup takes programs off a control group: those over these maps, and those
// of an agent whose own network namespace is gone, as lives tells by its inode.
func DetachCgroup(path string, maps *Maps, lives func(inode uint64) bool) error {
	group, err := openCgroup(path)
	if err != nil {
		return err
	}
	defer group.Close()
	var mine ebpf.MapID
	if maps != nil && maps.byName[gateMapHgSvcNetns1] != nil {
		if mine, err = mapID(maps.byName[gateMapHgSvcNetns1]); err != nil {
			return err
		}
	}
	var errs error
	for i := range sockOrder {
		errs = errors.Join(errs, detachSocks(group, sockOrder[len(sockOrder)-1-i], func(s sock) bool {
			return s.netns == mine || orphaned(s.netns, lives)
		}))
	}
	if errs != nil {
		return fmt.Errorf("detach the datapath from control group %s: %w", path, errs)
	}
	return nil
}

func detachSocks(group *os.File, at ebpf.AttachType, pick func(sock) bool) error {
	there, err := socks(group, at)
	if err != nil {
		return err
	}
	defer closeSocks(there)
	for _, s := range there {
		if !pick(s) {
			continue
		}
		e := link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(group.Fd()), Attach: at, Program: s.Program})
		if !errors.Is(e, os.ErrNotExist) { // another took it off
			err = errors.Join(err, e)
		}
	}
	return err
}

// orphaned reports that the agent's own namespace is known, and gone.
func orphaned(id ebpf.MapID, lives func(uint64) bool) bool {
	inode, ok := hostOf(id)
	return ok && !lives(inode)
}

// hostOf is the agent's own namespace, by a map of namespaces.
func hostOf(id ebpf.MapID) (inode uint64, ok bool) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return 0, false
	}
	defer m.Close()
	list, err := netnses(m)
	if err != nil {
		return 0, false
	}
	for _, n := range list {
		if n.Host {
			return n.Inode, true
		}
	}
	return 0, false
}

// CgroupUsers are the agents' own network namespaces, by inode, that have programs
// on a control group.
func CgroupUsers(path string) (map[uint64]bool, error) {
	group, err := openCgroup(path)
	if err != nil {
		return nil, err
	}
	defer group.Close()
	out := map[uint64]bool{}
	for _, at := range sockOrder {
		there, err := socks(group, at)
		if err != nil {
			return nil, err
		}
		for _, s := range there {
			if inode, ok := hostOf(s.netns); ok {
				out[inode] = true
			}
		}
		closeSocks(there)
	}
	return out, nil
}

func openCgroup(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open control group: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		f.Close()
		return nil, fmt.Errorf("%s: %w there: name its root with --cgroup-root, or write off", path, ErrNoCgroup)
	}
	return f, nil
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("read the datapath's maps: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("read the datapath's maps: the kernel gives them no numbers")
	}
	return id, nil
}
