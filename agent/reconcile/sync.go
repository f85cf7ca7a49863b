package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

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
	// One write that fails closes what it concerns; what the others forbid binds open
	// connections all the same.
	e.placeAgain()
	stale := errors.Is(backend, redirect.ErrStaleNames)
	err = errors.Join(e.writeTables(), e.writeNameTables(users, stale), e.writePrefixes(), e.closeMissing(), e.writeServices(e.serving), e.writeEndpoints(users, stale), e.writeServices(nil), e.writeSettings())
	err = errors.Join(err, e.cfg.Gate.SetRevision(uint32(e.revision)))
	if err == nil {
		err = e.removeUnused()
	}
	if err != nil {
		e.publish()
		if backend != nil { // not joined: that a proxy is away excuses nothing here
			return fmt.Errorf("%w; and %v", err, backend)
		}
		return err
	}
	for _, ep := range e.endpoints {
		ep.Revision = e.revision
	}
	e.publish()
	if backend != nil {
		return &backendError{backend}
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
	e.updateRules()
	now := e.settings()
	if err := errors.Join(e.numberEndpoints(), e.numberPrefixes()); err != nil {
		return nil, err
	}
	for _, s := range e.subjects {
		s.users = 0
	}
	users := make(map[string]*subject, len(e.endpoints))
	for _, key := range sortedKeys(e.endpoints) {
		s := e.subjectOf(e.endpoints[key])
		s.users++
		users[key] = s
	}
	if err := e.resolveHost(now); err != nil {
		return nil, err
	}
	changed, sets := e.resolve(now.Audit), policy.L7Table{}
	for _, s := range e.subjects {
		if s.resolved != nil {
			maps.Copy(sets, s.resolved.sets)
		}
	}
	e.resolveNames(changed, sets, now.Audit)
	inherited := e.inheritNumbers(sets)
	for i, s := range changed {
		if err := e.numberTable(s, s.resolved.table, sets); err != nil {
			for _, s := range changed[i:] { // the next change has to make them
				s.resolved = nil
			}
			return nil, err
		}
	}
	if err := e.numberNameSets(); err != nil {
		return nil, err
	}
	if !maps.EqualFunc(sets, e.sets, func(a, b *policy.L7Set) bool { return a.ID == b.ID }) {
		e.lastSets, e.sets = maps.Clone(e.sets), sets
		for _, id := range inherited { // its number is another's now
			delete(e.lastSets, id)
		}
	}
	return users, nil
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

// numberTable puts numbers in place of the names in a table.
func (e *Engine) numberTable(s *subject, t policy.AuditedTable, sets policy.L7Table) error {
	s.want, s.ports = make(bpf.PolicyTable, len(t.Entries)), nil
	for k, entry := range t.Entries {
		n := bpf.PolicyEntry{Verdict: entry.Verdict}
		if entry.Rule > 0 {
			n.Rule = e.numbers.rule(t.Rules[entry.Rule-1])
		}
		if n.Audit = entry.Audit; n.Audit { // what is told of it is who would deny it
			n.Rule = 0
		}
		if entry.AuditBy > 0 {
			n.Rule = e.numbers.rule(t.Rules[entry.AuditBy-1])
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
func selecting(rules []policy.Rule, of *policy.Subject) [2][]string {
	var out [2][]string
	for _, r := range rules {
		names := &out[r.Direction&1]
		if r.Node == of.Node && !slices.Contains(*names, r.Ref.Policy) && r.Subject.Matches(of.Labels) {
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
	snap := redirect.Snapshot{Revision: e.revision, Audit: e.settings().Audit, Zone: e.zone(), Sets: map[policy.SetID]redirect.NumberedSet{}}
	for _, table := range []policy.L7Table{e.lastSets, e.sets} {
		for id, set := range table {
			number, err := e.numbers.set(set)
			if err != nil {
				return err
			}
			snap.Sets[id] = redirect.NumberedSet{Number: number, Set: set}
		}
	}
	snap.Configs = e.envoyConfigs()
	// A set that needs a port of its own and has none yet is told of when it has: an answer
	// must not overtake it.
	snap.Names = e.namesFor(snap.Sets, e.served)
	snap.Secrets, _ = e.readSecrets() // whoever is told of errors is CheckSecrets
	e.secrets = snap.Secrets
	ctx, cancel := context.WithTimeout(ctx, backendPatience)
	defer cancel()
	err := late(e.cfg.Backend.Enforce(ctx, snap))
	if bad := (*redirect.SetsError)(nil); errors.As(err, &bad) {
		e.cfg.Logger.Error("some L7 rules deny everything", "error", err)
		err = nil
	}
	if err == nil {
		err = late(e.serveRoutes(ctx))
	}
	if names := e.namesFor(snap.Sets, allSets); err == nil && len(names.Sets) > len(snap.Names.Sets) {
		snap.Names = names
		if err = late(e.cfg.Backend.Enforce(ctx, snap)); errors.As(err, new(*redirect.SetsError)) {
			err = nil // it was told the first time
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("hand L7 rules to the proxy: %w", err), e.closeInherited())
	}
	clear(e.inherited)
	return nil
}

// backendError says that all is in force but what a backend is to carry.
type backendError struct{ error }

func (e *backendError) Unwrap() error { return e.error }

// late says of a backend that did not answer in time that it is not ready.
func late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, redirect.ErrNotReady) {
		return fmt.Errorf("%w: %w", redirect.ErrNotReady, err)
	}
	return err
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
	e.forgetNameTables()
	used := map[policy.Identity]bool{}
	for _, id := range e.prefixes {
		used[id] = true
	}
	for key, id := range e.numbers.Identities {
		if !used[id] {
			e.book.index.RemoveIdentity(id)
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
