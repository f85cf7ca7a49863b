package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/proxy/fqdn"
	"github.com/headgate/headgate/redirect"
)

// learner is the Learner over what is kept of names.
type learner struct{ store *fqdn.Store }

var (
	_ Learner   = learner{}
	_ Immediate = learner{}
)

// Learn implements Learner.
func (l learner) Learn(a Learnt, done func(error)) {
	l.store.Learn(fqdn.Answer{Client: a.Client, Name: a.Name, At: a.At, Came: a.At, Addresses: a.Addresses}, done)
}

// LearnNow implements Immediate.
func (l learner) LearnNow(a Learnt, s *Standing) (now bool, err error) {
	return l.store.LearnNow(fqdn.Answer{Client: a.Client, Name: a.Name, At: a.At, Came: a.At, Addresses: a.Addresses}, s)
}

// openNames takes up what is known of names.
func (p *process) openNames() error {
	if p.config.Names == nil {
		return nil
	}
	c := *p.config.Names
	c.Logger, c.Forgot = p.log, p.tellAnew
	var err error
	if p.learnt, err = fqdn.New(c); err != nil {
		return err
	}
	p.config.Learner = learner{p.learnt}
	return nil
}

// enforceNames returns once rules about names are in force. What did not find room is
// closed: the rest of the snapshot holds all the same. But what the datapath will not
// forget might be open by the new rules: then they must not hold.
func (p *process) enforceNames(ctx context.Context, n *redirect.Names) error {
	if p.learnt == nil {
		return nil
	}
	if err := p.beginTelling(); err != nil { // what was told by the rules before holds no more
		return status.Error(codes.Internal, err.Error())
	}
	switch err := p.learnt.Update(ctx, n); {
	case err == nil:
		p.tellFromNow()
		return nil
	case errors.Is(err, fqdn.ErrEnded):
		return nil
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, fqdn.ErrStale):
		return status.Error(codes.Aborted, err.Error())
	default:
		p.log.Error("some names are not in force: what they would allow is denied", "error", err)
		return nil
	}
}

// handOverNames leaves names to the process that takes over, but for those in answers to
// what this one has asked.
func (p *process) handOverNames() {
	if p.learnt == nil {
		return
	}
	if err := p.learnt.Leave(p.life); err != nil && p.life.Err() == nil {
		p.log.Error("hand over what was learnt of names", "error", err)
	}
}

func (p *process) learntStats(ctx context.Context) *proxyv1.NameStats {
	if p.learnt == nil {
		return nil
	}
	s, err := p.learnt.Stats(ctx)
	if err != nil {
		return nil
	}
	return &proxyv1.NameStats{
		Names: uint64(s.Names), Addresses: uint64(s.Addresses), InKernel: uint64(s.InKernel), Identities: uint64(s.Identities), Waiting: uint64(s.Waiting),
		Held: s.Held, Answers: s.Answers, Refused: s.Refused, P50Ns: int64(s.P50), P99Ns: int64(s.P99),
		Stuck: uint64(s.Stuck), StuckEndpoints: each(s.StuckEndpoints, func(id uint16) uint32 { return uint32(id) }),
	}
}

// namesAPI serves the agent.
type namesAPI struct {
	proxyv1.UnimplementedNamesServer
	p *process
}

var errNoNames = status.Error(codes.Unimplemented, "this proxy learns no names")

// List says what is known.
func (a *namesAPI) List(ctx context.Context, r *proxyv1.ListNamesRequest) (*proxyv1.ListNamesResponse, error) {
	s := a.p.learnt
	if s == nil {
		return nil, errNoNames
	}
	limit := int(r.Limit)
	if limit == 0 {
		limit = math.MaxInt
	}
	known, all, err := s.List(ctx, limit)
	if err != nil {
		return nil, status.FromContextError(err).Err()
	}
	selectors, err := s.Selectors(ctx)
	if err != nil {
		return nil, status.FromContextError(err).Err()
	}
	out := &proxyv1.ListNamesResponse{All: uint64(all), Stats: a.p.learntStats(ctx)}
	for _, k := range known {
		out.Names = append(out.Names, &proxyv1.KnownName{
			Name: k.Name, Address: k.Address.AsSlice(), Endpoint: k.Endpoint, Expires: k.Expires.Unix(), Identity: uint32(k.Identity), Selectors: k.Selectors,
		})
	}
	for _, x := range selectors {
		out.Selectors = append(out.Selectors, &proxyv1.SelectedNames{Selector: x.Selector, Names: uint64(x.Names), Addresses: uint64(x.Addresses)})
	}
	return out, nil
}

// Missing waits for sets that nobody made.
func (a *namesAPI) Missing(ctx context.Context, _ *proxyv1.MissingRequest) (*proxyv1.MissingResponse, error) {
	if a.p.learnt == nil {
		return nil, errNoNames
	}
	missing, err := a.p.learnt.Missing(ctx)
	if err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &proxyv1.MissingResponse{Sets: each(missing, missingToProto)}, nil
}

// ErrNoProxy says that nobody is there to be asked.
var ErrNoProxy = errors.New("there is no proxy")

// Learnt asks the proxy what it knows of names.
func (b *Backend) Learnt(ctx context.Context, limit uint32) (*proxyv1.ListNamesResponse, error) {
	l := b.current()
	if l == nil {
		return nil, ErrNoProxy
	}
	return proxyv1.NewNamesClient(l.conn).List(ctx, &proxyv1.ListNamesRequest{Limit: limit})
}

// LearntStats is how it is with names, as the proxy told last; nil: it did not.
func (b *Backend) LearntStats() *proxyv1.NameStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stats.GetLearnt()
}

// StuckEndpoints are the numbers of endpoints that are gone, and that must not be given to
// others yet: the datapath has not forgotten what they knew.
func (b *Backend) StuckEndpoints() []uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stuck
}

// MissingSets waits until the proxy misses sets of rules.
func (b *Backend) MissingSets(ctx context.Context) ([]redirect.MissingSet, error) {
	l := b.current()
	if l == nil {
		return nil, ErrNoProxy
	}
	r, err := proxyv1.NewNamesClient(l.conn).Missing(ctx, &proxyv1.MissingRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask the proxy which sets of rules it misses: %w", err)
	}
	var out []redirect.MissingSet
	for _, p := range r.Sets {
		m, err := missingFromProto(p)
		if err != nil {
			return nil, fmt.Errorf("ask the proxy which sets of rules it misses: %w", err)
		}
		out = append(out, m)
	}
	return out, nil
}

func (b *Backend) current() *link {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.link
}
