package xds

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/redirect"
)

var _ redirect.Discoverer = (*Backend)(nil)

// Discovery implements redirect.Discoverer: what is handed out now, and to whom. The
// type is a URL, its last part, or empty for all.
func (b *Backend) Discovery(typeURL string) (redirect.Discovery, error) {
	out := redirect.Discovery{Clients: b.clients.list()}
	secrets := b.secretValues()
	known := map[string]bool{}
	for kind, c := range b.store.caches {
		known[kind] = true
		if !isType(kind, typeURL) {
			continue
		}
		for name, r := range c.GetResources() {
			d, err := b.describe(kind, name, r, secrets)
			if err != nil {
				return out, err
			}
			out.Resources = append(out.Resources, d)
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(known)), func(kind string) bool { return isType(kind, typeURL) }) {
		return out, fmt.Errorf("show what is served: no resource is of type %q: write one of %s", typeURL, shortNames(known))
	}
	for kind, c := range b.services.caches {
		if !isType(kind, typeURL) {
			continue
		}
		for name, r := range c.GetResources() {
			body, err := renderMasked(r.(proto.Message), secrets)
			if err != nil {
				return out, fmt.Errorf("show %s: %w", name, err)
			}
			out.Resources = append(out.Resources, redirect.DiscoveryResource{Type: kind, Name: name, Version: versionOf(r), State: "offered", Body: body})
		}
	}
	slices.SortFunc(out.Resources, func(a, b redirect.DiscoveryResource) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name), strings.Compare(a.State, b.State))
	})
	return out, nil
}

func (b *Backend) describe(kind, name string, r types.Resource, secrets []string) (redirect.DiscoveryResource, error) {
	d := redirect.DiscoveryResource{Type: kind, Name: name, Version: versionOf(r)}
	d.State, d.Refusal = b.store.state(resourceKey{kind, name}, d.Version)
	d.Refusal = maskText(d.Refusal, secrets)
	var err error
	if d.Body, err = renderMasked(r.(proto.Message), secrets); err != nil {
		return d, fmt.Errorf("show %s: %w", name, err)
	}
	return d, nil
}

// state says what Envoy made of a resource.
func (l *ledger) state(key resourceKey, version string) (state, refusal string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.refused[key]; ok && r.version == version {
		return "refused", r.message
	}
	if l.acked[key] == version {
		return "acked", ""
	}
	return "sent", ""
}

func versionOf(r types.Resource) string {
	bytes, err := cache.MarshalResource(r)
	if err != nil {
		return ""
	}
	return cache.HashResource(bytes)
}

// isType reports whether a type URL is the one that was asked for, which may be its
// last part in any case: "listener".
func isType(kind, asked string) bool {
	return asked == "" || kind == asked || strings.EqualFold(lastPart(kind), asked)
}

func lastPart(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }

func shortNames(kinds map[string]bool) string {
	var out []string
	for kind := range kinds {
		out = append(out, lastPart(kind))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// secretValues are those that resources may hold.
func (b *Backend) secretValues() []string {
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	return b.secretTexts
}

// noteSecrets of a snapshot. Until it is in force resources may hold those of before.
func (b *Backend) noteSecrets(s redirect.Snapshot, inForce bool) {
	texts := slices.Collect(maps.Values(s.Secrets))
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	if !inForce {
		texts = append(texts, b.secretTexts...)
	}
	slices.Sort(texts)
	b.secretTexts = slices.Compact(texts)
}
