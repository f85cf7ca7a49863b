package xds

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// store is what Envoy is to have, and the ledger of what it took.
type store struct {
	*ledger
	caches map[string]*cache.LinearCache // by type

	mu   sync.Mutex
	want versions
}

func newStore() *store {
	s := &store{ledger: newLedger(), want: versions{}, caches: map[string]*cache.LinearCache{}}
	for _, typeURL := range []string{resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType, resource.SecretType} {
		s.caches[typeURL] = cache.NewLinearCache(typeURL, cache.WithLogger(quiet{}))
	}
	return s
}

// watcher is what the delta server reads.
func (s *store) watcher() *cache.MuxCache {
	m := &cache.MuxCache{
		Classify:      func(r *cache.Request) string { return r.GetTypeUrl() },
		ClassifyDelta: func(r *cache.DeltaRequest) string { return r.GetTypeUrl() },
		Caches:        map[string]cache.Cache{},
	}
	for typeURL, c := range s.caches {
		m.Caches[typeURL] = c
	}
	return m
}

// put gives Envoy resources of one type and takes others away. It does not wait.
func (s *store) put(typeURL string, update map[string]types.Resource, remove ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := map[string]types.Resource{}
	for name, r := range update {
		b, err := cache.MarshalResource(r)
		if err != nil {
			return fmt.Errorf("encode %s for Envoy: %w", name, err)
		}
		key, version := resourceKey{typeURL, name}, cache.HashResource(b)
		if s.want[key] != version {
			s.want[key] = version
			changed[name] = r
		}
	}
	for _, name := range remove {
		delete(s.want, resourceKey{typeURL, name})
	}
	if len(changed)+len(remove) == 0 {
		return nil
	}
	if err := s.caches[typeURL].UpdateResources(changed, remove); err != nil {
		return fmt.Errorf("hand resources to Envoy: %w", err)
	}
	return nil
}

// settle waits until Envoy has these resources as they are wanted now.
func (s *store) settle(ctx context.Context, typeURL string, names ...string) error {
	s.mu.Lock()
	want := make(versions, len(names))
	for _, name := range names {
		key := resourceKey{typeURL, name}
		want[key] = s.want[key]
	}
	s.mu.Unlock()
	return s.wait(ctx, want)
}

// change puts resources of a type and waits for all of them. If Envoy refuses, the
// ones before are put back.
func (s *store) change(ctx context.Context, typeURL string, update map[string]types.Resource) error {
	before := s.caches[typeURL].GetResources()
	if err := s.put(typeURL, update); err != nil {
		return err
	}
	names := make([]string, 0, len(update))
	for name := range update {
		names = append(names, name)
	}
	err := s.settle(ctx, typeURL, names...)
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	restored := map[string]types.Resource{}
	var gone []string
	for _, name := range names {
		if r, ok := before[name]; ok {
			restored[name] = r
		} else {
			gone = append(gone, name)
		}
	}
	return errors.Join(err, s.put(typeURL, restored, gone...))
}

// quiet is a logger that says nothing: the ledger knows what happens.
type quiet struct{}

func (quiet) Debugf(string, ...any) {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
