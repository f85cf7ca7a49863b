package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// backendPatience is how long a proxy may hold up a change. It is asked again later.
const backendPatience = 3 * time.Second

// sync puts in force what is wanted. The caller holds the lock.
func (e *Engine) sync(ctx context.Context) error {
	e.dirty = true
	users, err := e.resolveSubjects()
	if err != nil {
		return err
	}
	if err := e.save(); err != nil {
		return err
	}
	// A backend that is down does not hold up the rest: its ports are closed, and
	// the last snapshot asked for is in force before they open again.
	backend := e.enforce(ctx)
	if err := errors.Join(e.writeTables(), e.writePrefixes(), e.writeEndpoints(users)); err != nil {
		return errors.Join(err, backend)
	}
	if err := e.cfg.Gate.SetRevision(uint32(e.revision)); err != nil {
		return errors.Join(err, backend)
	}
	if err := e.removeUnused(); err != nil {
		return errors.Join(err, backend)
	}
	for _, ep := range e.endpoints {
		ep.Revision = e.revision
	}
	e.publish()
	if backend != nil {
		return backend
	}
	e.enforced.Store(e.revision)
	e.dirty = false
	return nil
}

func (e *Engine) save() error {
	if e.cfg.Save == nil {
		return nil
	}
	if err := e.cfg.Save(e.state()); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// resolveSubjects numbers identities, finds which subjects there are and makes
// their tables. It says which subject each endpoint has.
func (e *Engine) resolveSubjects() (map[string]*subject, error) {
	rules := e.rules()
	if err := errors.Join(e.numberEndpoints(), e.numberPrefixes(rules)); err != nil {
		return nil, err
	}
	for _, s := range e.subjects {
		s.users, s.want, s.ports = 0, nil, nil
	}
	users := make(map[string]*subject, len(e.endpoints))
	for _, key := range sortedKeys(e.endpoints) {
		s := e.subjectOf(e.endpoints[key])
		s.users++
		users[key] = s
	}
	sets := policy.L7Table{}
	for _, s := range e.subjects {
		if s.users == 0 {
			continue
		}
		table, l7 := policy.Resolve(s.of, rules, e.ids)
		maps.Copy(sets, l7)
		if err := e.numberTable(s, table, l7); err != nil {
			return nil, err
		}
		s.names = selecting(rules, s.of.Labels)
	}
	if !maps.EqualFunc(sets, e.sets, func(a, b *policy.L7Set) bool { return a.ID == b.ID }) {
		e.lastSets, e.sets = e.sets, sets
	}
	return users, nil
}

func (e *Engine) rules() []policy.Rule {
	var out []policy.Rule
	for _, key := range sortedKeys(e.policies) {
		out = append(out, e.policies[key].Rules...)
	}
	return out
}

// numberEndpoints gives every endpoint the identity of its labels, and makes known
// what endpoints of an identity call their ports.
func (e *Engine) numberEndpoints() error {
	infos := map[policy.Identity]*policy.IdentityInfo{}
	for _, key := range sortedKeys(e.endpoints) {
		ep := e.endpoints[key]
		labels, err := e.labelsOf(ep)
		if err != nil {
			return err
		}
		if ep.Identity, err = e.numbers.identity(labels.String(), false); err != nil {
			return err
		}
		info := infos[ep.Identity]
		if info == nil {
			info = &policy.IdentityInfo{ID: ep.Identity, Labels: labels, NamedPorts: policy.NamedPorts{}}
			infos[ep.Identity] = info
		}
		for name, p := range ep.Ports {
			if !slices.Contains(info.NamedPorts[name], p) {
				info.NamedPorts[name] = append(info.NamedPorts[name], p)
			}
		}
	}
	for _, info := range infos {
		if err := e.ids.Add(*info); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) labelsOf(ep *endpoint.Endpoint) (policy.Labels, error) {
	labels, err := policy.EndpointLabels(ep.Namespace, ep.ServiceAccount, e.cfg.Cluster, e.namespaces[ep.Namespace], ep.Labels)
	if err != nil {
		return labels, fmt.Errorf("endpoint %s: %w", ep.Key(), err)
	}
	return labels, nil
}

// subjectOf finds an endpoint's subject, or makes it.
func (e *Engine) subjectOf(ep *endpoint.Endpoint) *subject {
	key := fmt.Sprintf("%d %v", ep.Identity, endpoint.FormatPorts(ep.Ports))
	s := e.subjects[key]
	if s == nil {
		s = &subject{number: e.freeSubject()}
		e.subjects[key] = s
	}
	ports := policy.NamedPorts{}
	for name, p := range ep.Ports {
		ports[name] = []policy.NamedPort{p}
	}
	info, _ := e.ids.Get(ep.Identity)
	s.of = policy.Subject{Labels: info.Labels, NamedPorts: ports, Enforcement: e.cfg.Enforcement}
	return s
}

func (e *Engine) freeSubject() uint32 {
	taken := map[uint32]bool{}
	for _, s := range e.subjects {
		taken[s.number] = true
	}
	for n := uint32(1); ; n++ {
		if !taken[n] {
			return n
		}
	}
}

func (e *Engine) numberPrefixes(rules []policy.Rule) error {
	for _, p := range policy.Prefixes(rules) {
		if _, fixed := e.cfg.Fixed[p]; fixed {
			continue
		}
		id, err := e.numbers.identity(prefixKey(p), true)
		if err != nil {
			return err
		}
		if err := e.ids.Add(policy.IdentityInfo{ID: id, Prefix: p}); err != nil {
			return err
		}
	}
	return nil
}

// numberTable puts numbers in place of the names in a table.
func (e *Engine) numberTable(s *subject, t policy.Table, sets policy.L7Table) error {
	s.want = make(bpf.PolicyTable, len(t.Entries))
	for k, entry := range t.Entries {
		n := bpf.PolicyEntry{Verdict: entry.Verdict}
		if entry.Rule > 0 {
			n.Rule = e.numbers.rule(t.Rules[entry.Rule-1])
		}
		if entry.Verdict == policy.Redirect {
			set := sets[entry.Set]
			if set == nil {
				return fmt.Errorf("resolve policy: entry %+v names an L7 set that was not made", k)
			}
			number, err := e.numbers.set(set)
			if err != nil {
				return err
			}
			n.Set = uint32(number)
			r := Redirect{Protocol: set.Protocol, Direction: k.Direction, Port: k.Port}
			if !slices.Contains(s.ports, r) {
				s.ports = append(s.ports, r)
			}
		}
		s.want[k] = n
	}
	return nil
}

// selecting names the policies that select these labels, by direction.
func selecting(rules []policy.Rule, labels policy.Labels) [2][]string {
	var out [2][]string
	for _, r := range rules {
		names := &out[r.Direction&1]
		if !slices.Contains(*names, r.Ref.Policy) && r.Subject.Matches(labels) {
			*names = append(*names, r.Ref.Policy)
		}
	}
	return out
}

// enforce hands the backend every set that the gate may name, now or in a moment.
func (e *Engine) enforce(ctx context.Context) error {
	if e.cfg.Backend == nil {
		return nil
	}
	snap := redirect.Snapshot{Revision: e.revision, Sets: map[policy.SetID]redirect.NumberedSet{}}
	for _, table := range []policy.L7Table{e.lastSets, e.sets} {
		for id, set := range table {
			number, err := e.numbers.set(set)
			if err != nil {
				return err
			}
			snap.Sets[id] = redirect.NumberedSet{Number: number, Set: set}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, backendPatience)
	defer cancel()
	err := e.cfg.Backend.Enforce(ctx, snap)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", redirect.ErrNotReady, err)
	}
	if bad := (*redirect.SetsError)(nil); errors.As(err, &bad) {
		e.cfg.Logger.Error("some L7 rules deny everything", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("hand L7 rules to the proxy: %w", err)
	}
	return nil
}

func (e *Engine) writeTables() error {
	var errs error
	for _, s := range e.subjects {
		if s.users == 0 || (s.table != nil && maps.Equal(s.table, s.want)) {
			continue
		}
		err := e.cfg.Gate.SyncPolicy(s.number, s.table, s.want)
		if err != nil {
			// What is in the kernel is some mixture: all of it is old next time.
			mixed := maps.Clone(s.want)
			for k := range s.table {
				mixed[k] = bpf.PolicyEntry{Verdict: 0xff}
			}
			s.table, errs = mixed, errors.Join(errs, err)
			continue
		}
		s.table = s.want
	}
	return errs
}

// wantedPrefixes are all addresses with an identity.
func (e *Engine) wantedPrefixes() map[netip.Prefix]policy.Identity {
	want := maps.Clone(e.cfg.Fixed)
	if want == nil {
		want = map[netip.Prefix]policy.Identity{}
	}
	for _, p := range policy.Prefixes(e.rules()) {
		if _, fixed := want[p]; !fixed {
			want[p] = e.numbers.Identities[prefixKey(p)]
		}
	}
	for _, ep := range e.endpoints {
		for _, ip := range ep.IPs {
			want[netip.PrefixFrom(ip, ip.BitLen())] = ep.Identity
		}
	}
	return want
}

func (e *Engine) writePrefixes() error {
	want := e.wantedPrefixes()
	var errs error
	for p, id := range want {
		if old, ok := e.prefixes[p]; ok && old == id {
			continue
		}
		if err := e.cfg.Gate.SetIdentity(p, id); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		e.prefixes[p] = id
	}
	for p := range e.prefixes {
		if _, ok := want[p]; ok {
			continue
		}
		if err := e.cfg.Gate.DeleteIdentity(p); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		delete(e.prefixes, p)
	}
	return errs
}

// writeEndpoints points endpoints to their tables. From then on they have traffic.
func (e *Engine) writeEndpoints(users map[string]*subject) error {
	var errs error
	want := map[netip.Addr]bool{}
	for key, ep := range e.endpoints {
		s := users[key]
		ready := maps.Equal(s.table, s.want)
		ep.State, ep.Detail = endpoint.Ready, ""
		if !ready {
			ep.State, ep.Detail = endpoint.Failed, "its policy could not be written to the datapath: everything is denied"
		}
		for _, ip := range ep.IPs {
			want[ip] = true
			w := bpf.Endpoint{
				Addr: ip, Ifindex: ep.Ifindex, ID: ep.ID, Identity: ep.Identity, Subject: s.number,
				MAC: ep.HardwareAddr(), Ready: ready,
			}
			if old, ok := e.written[ip]; ok && sameEndpoint(old, w) {
				continue
			}
			if err := e.cfg.Gate.SetEndpoint(w); err != nil {
				ep.State, ep.Detail = endpoint.Failed, err.Error()
				errs = errors.Join(errs, err)
				continue
			}
			e.written[ip] = w
		}
	}
	for ip := range e.written {
		if want[ip] {
			continue
		}
		if err := e.cfg.Gate.DeleteEndpoint(ip); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		delete(e.written, ip)
	}
	return errs
}

func sameEndpoint(a, b bpf.Endpoint) bool {
	return a.Ifindex == b.Ifindex && a.ID == b.ID && a.Identity == b.Identity && a.Subject == b.Subject &&
		a.Ready == b.Ready && a.MAC.String() == b.MAC.String()
}

// removeUnused forgets subjects and identities that nobody has any more.
func (e *Engine) removeUnused() error {
	for key, s := range e.subjects {
		if s.users > 0 || s.want != nil || isStale(key) {
			continue
		}
		if err := e.cfg.Gate.DeletePolicy(s.number, s.table); err != nil {
			return err
		}
		delete(e.subjects, key)
	}
	used := map[policy.Identity]bool{}
	for _, id := range e.prefixes {
		used[id] = true
	}
	for key, id := range e.numbers.Identities {
		if !used[id] {
			e.ids.Remove(id)
			delete(e.numbers.Identities, key)
		}
	}
	for key, number := range e.numbers.Sets {
		id := e.numbers.setIDs[number]
		if e.sets[id] == nil && e.lastSets[id] == nil {
			delete(e.numbers.Sets, key)
			delete(e.numbers.setIDs, number)
		}
	}
	return nil
}

func isStale(key string) bool { return len(key) > 6 && key[:6] == "stale " }
