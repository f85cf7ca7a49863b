package verdict

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/names"
)

// Judge answers questions about one world under some policies. It is not safe
// for concurrent use: it keeps the tables that it has made.
type Judge struct {
	Warnings []string // what of the world was not believed

	written     []policy.Rule // as policies have them
	rules       []policy.Rule // the same, with addresses in place of references
	objects     policy.Objects
	enforcement policy.Enforcement
	ids         *policy.Identities
	workloads   map[string]*party // by "namespace/name"
	nodes       map[string]*party // by name
	host        *party
	entities    map[policy.Identity]*party
	byAddress   map[netip.Addr]*party
	names       names.Table
	prefixes    []policy.IdentityInfo // of the addresses that rules tell apart, longest first
	tables      map[*party]*resolved
	audits      bool // some rules only audit
	audit       map[*party]*resolved
	judges      map[policy.SetID]policy.Judge
	nextLocal   policy.Identity
	normal      NormalPath
}

// party is one end of a connection.
type party struct {
	name    string
	id      policy.Identity
	subject *policy.Subject // nil: policies do not apply to it
}

// resolved is the policy of one party.
type resolved struct {
	table policy.Table
	sets  policy.L7Table
}

// NormalPath writes a request path, without its query, as a proxy judges and
// forwards it, appended to dst. An error: a proxy refuses the request.
type NormalPath func(dst, path []byte) ([]byte, error)

// New makes a judge. It fails if the world is not described well. normal is the
// proxies' own: rules see the form that goes upstream.
func New(world *World, policies []policy.Policy, normal NormalPath) (*Judge, error) {
	j := &Judge{
		ids: policy.NewIdentities(), workloads: map[string]*party{}, nodes: map[string]*party{}, byAddress: map[netip.Addr]*party{},
		tables: map[*party]*resolved{}, audit: map[*party]*resolved{}, judges: map[policy.SetID]policy.Judge{}, entities: map[policy.Identity]*party{},
		nextLocal: policy.IdentityMinLocal, normal: normal,
	}
	modes := map[string]policy.Enforcement{
		"": policy.EnforcementDefault, "default": policy.EnforcementDefault, "always": policy.EnforcementAlways, "never": policy.EnforcementNever,
	}
	var ok bool
	if j.enforcement, ok = modes[world.Enforcement]; !ok {
		return nil, fmt.Errorf("read enforcement: %q is no mode; write default, always or never", world.Enforcement)
	}
	for _, add := range []func(*World) error{j.addServices, j.addEndpoints, j.addNodes, j.addNames} {
		if err := add(world); err != nil {
			return nil, err
		}
	}
	j.objects.AddGroups(policies...)
	var rules []policy.Rule
	for _, p := range policies {
		rules = append(rules, p.Rules...)
		j.audits = j.audits || p.Mode == policy.ModeAudit
	}
	j.written, j.rules = rules, j.objects.Expand(rules)
	return j, j.addPrefixes()
}

func (j *Judge) addServices(world *World) error {
	for _, s := range world.Services {
		namespace := orDefault(s.Namespace)
		addrs, err := addresses("service "+namespace+"/"+s.Name, s.IPs)
		if err != nil {
			return err
		}
		j.objects.Services = append(j.objects.Services, policy.Service{
			Namespace: namespace, Name: s.Name, Labels: s.Labels, Selector: s.Selector, Addresses: addrs,
		})
	}
	return nil
}

// addEndpoints gives endpoints with the same labels the same identity.
func (j *Judge) addEndpoints(world *World) error {
	infos := map[string]*policy.IdentityInfo{}
	next := policy.IdentityMinWorkload
	for i := range world.Endpoints {
		e := &world.Endpoints[i]
		name := e.FullName()
		labels, leftOut, err := e.labels()
		if err != nil {
			return err
		}
		for _, key := range leftOut {
			j.Warnings = append(j.Warnings, fmt.Sprintf("endpoint %s: label %s is not a workload's to set and is left out", name, key))
		}
		ports, err := e.namedPorts()
		if err != nil {
			return err
		}
		info := infos[labels.String()]
		if info == nil {
			info = &policy.IdentityInfo{ID: next, Labels: labels, NamedPorts: policy.NamedPorts{}}
			infos[labels.String()] = info
			if next++; next > policy.IdentityMaxWorkload {
				return fmt.Errorf("number the endpoints: %d sets of labels are too many", next)
			}
		}
		for port, list := range ports {
			info.NamedPorts[port] = union(info.NamedPorts[port], list)
		}
		if j.workloads[name] != nil {
			return fmt.Errorf("read endpoint %s: it is there twice", name)
		}
		w := &party{name, info.ID, &policy.Subject{Labels: labels, NamedPorts: ports, Enforcement: j.enforcement}}
		j.workloads[name] = w
		if err := j.place(w, "endpoint "+name, e.IPs); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(infos)) {
		if err := j.ids.Add(*infos[key]); err != nil {
			return err
		}
	}
	return nil
}

func union(a, b []policy.NamedPort) []policy.NamedPort {
	for _, p := range b {
		if !slices.Contains(a, p) {
			a = append(a, p)
		}
	}
	return a
}

// place remembers whose addresses these are. The first owner keeps one.
func (j *Judge) place(p *party, owner string, ips []string) error {
	addrs, err := addresses(owner, ips)
	for _, a := range addrs {
		if j.byAddress[a] == nil {
			j.byAddress[a] = p
		}
	}
	return err
}

// addNodes makes nodes subjects of host policies. The host is told apart from
// the same node seen from others by its reserved label.
func (j *Judge) addNodes(world *World) error {
	local := slices.IndexFunc(world.Nodes, func(n Node) bool { return n.Local })
	for i, n := range world.Nodes {
		p, err := j.node(n.Name, n.Local, n.Labels)
		if err != nil {
			return err
		}
		j.nodes[n.Name] = p
		if i == max(local, 0) {
			if j.host, err = j.node("host", true, n.Labels); err != nil {
				return err
			}
		}
		if err := j.place(p, "node "+n.Name, n.IPs); err != nil {
			return err
		}
	}
	if j.host == nil {
		j.host = j.reserved("host", policy.IdentityHost, true)
	}
	return nil
}

func (j *Judge) node(name string, local bool, labels map[string]string) (*party, error) {
	set, err := policy.NodeLabels(local, labels)
	if err != nil {
		return nil, fmt.Errorf("read node %s: %w", name, err)
	}
	id, err := j.addLocal(policy.IdentityInfo{Labels: set})
	return &party{name, id, &policy.Subject{Labels: set, Node: true, Enforcement: j.enforcement}}, err
}

// reserved makes a party of a reserved identity that policies apply to.
func (j *Judge) reserved(name string, id policy.Identity, node bool) *party {
	labels, _ := policy.ReservedLabels(id)
	return &party{name, id, &policy.Subject{Labels: labels, Node: node, Enforcement: j.enforcement}}
}

func (j *Judge) addLocal(info policy.IdentityInfo) (policy.Identity, error) {
	info.ID = j.nextLocal
	j.nextLocal++
	return info.ID, j.ids.Add(info)
}

// addNames remembers answers. They do not run out: a world has no clock.
func (j *Judge) addNames(world *World) error {
	for _, n := range world.Names {
		addrs, err := addresses("the name "+n.Name, n.IPs)
		if err != nil {
			return err
		}
		j.names.Learn(names.Answer{Name: n.Name, Addresses: addrs, Expires: time.Unix(1, 0)})
	}
	return nil
}

// addPrefixes gives identities to the addresses outside that rules, or names,
// tell apart.
func (j *Judge) addPrefixes() error {
	seen := map[netip.Prefix]policy.Labels{}
	for _, p := range policy.Prefixes(j.rules) {
		seen[p] = policy.CIDRLabels(p)
	}
	for _, a := range j.names.Addresses() {
		p, labels := j.names.Identity(a)
		seen[p] = labels
	}
	list := slices.SortedFunc(maps.Keys(seen), netip.Prefix.Compare)
	for _, p := range list {
		info := policy.IdentityInfo{Prefix: p, Labels: seen[p]}
		id, err := j.addLocal(info)
		if err != nil {
			return err
		}
		info.ID = id
		j.prefixes = append(j.prefixes, info)
	}
	slices.SortStableFunc(j.prefixes, func(a, b policy.IdentityInfo) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	return nil
}

func (j *Judge) resolve(p *party) *resolved {
	r := j.tables[p]
	if r == nil {
		r = &resolved{}
		r.table, r.sets = policy.Resolve(*p.subject, j.rules, j.ids)
		j.tables[p] = r
	}
	return r
}

// resolveAudit is resolve as if the policies that audit enforced.
func (j *Judge) resolveAudit(p *party) *resolved {
	r := j.audit[p]
	if r == nil {
		r = &resolved{}
		r.table, r.sets = policy.ResolveAudit(*p.subject, j.rules, j.ids)
		j.audit[p] = r
	}
	return r
}

func (j *Judge) compile(set *policy.L7Set) (policy.Judge, error) {
	judge := j.judges[set.ID]
	if judge == nil {
		var err error
		if judge, err = policy.CompileSet(set); err != nil {
			return nil, err
		}
		j.judges[set.ID] = judge
	}
	return judge, nil
}
