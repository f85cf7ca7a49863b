package xds

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/headgate/headgate/redirect"
)

// savedPort is what outlives an agent: Envoy keeps its listeners, and the next agent
// must offer the same ones, or it would take them away.
type savedPort struct {
	Egress  redirect.SetNumber `json:"egress"`
	Ingress redirect.SetNumber `json:"ingress"`
	Port    redirect.ProxyPort `json:"port"`
	Rules   string             `json:"rules"` // told from others
}

// savePorts is called with mu held.
func (b *Backend) savePorts() error {
	all := make([]savedPort, 0, len(b.ports))
	for p, port := range b.ports {
		all = append(all, savedPort{p.egress, p.ingress, port, b.savedRules[p]})
	}
	return writeJSON(b.file(portsName), all)
}

// loadPorts reads what was saved, if the Envoy that it was saved for still runs. One
// that starts anew gets listeners anew.
func (b *Backend) loadPorts() map[pair]redirect.ProxyPort {
	text, err := os.ReadFile(b.file(portsName))
	if err != nil {
		return nil
	}
	if b.config.Path != "" {
		p := running(b.config.Dir)
		if p == nil {
			return nil
		}
		p.close()
	}
	var all []savedPort
	if err := json.Unmarshal(text, &all); err != nil {
		b.log.Warn("read the ports of Envoy: they are chosen anew", "error", err)
		return nil
	}
	ports := map[pair]redirect.ProxyPort{}
	b.savedRules = map[pair]string{}
	for _, s := range all {
		ports[pair{s.Egress, s.Ingress}] = s.Port
		b.savedRules[pair{s.Egress, s.Ingress}] = s.Rules
	}
	b.oldRules = maps.Clone(b.savedRules)
	return ports
}

// restorePorts offers the listeners of an agent before, of the pairs whose sets are in
// force again, and lets Envoy ask. It is called with mu held, by the first snapshot.
func (b *Backend) restorePorts() error {
	if b.saved == nil {
		return nil
	}
	routes, listeners := map[string]types.Resource{}, map[string]types.Resource{}
	for p, port := range b.saved {
		if !b.knows(p.egress) || !b.knows(p.ingress) {
			continue
		}
		if p.custom() && b.customFailure(p) != nil {
			continue
		}
		l, err := b.listenerFor(p, port)
		if err != nil {
			return err
		}
		listeners[p.name()] = l
		if p.routed() {
			if routes[p.name()], err = b.routes(p); err != nil {
				return err
			}
		}
		b.ports[p] = port
	}
	if err := errors.Join(b.store.put(resource.RouteType, routes), b.store.put(resource.ListenerType, listeners)); err != nil {
		return err
	}
	b.saved = nil
	select {
	case <-b.primed:
	default:
		close(b.primed)
	}
	return nil
}

// listenPrivately listens on a unix socket that is one user's, and takes connections of
// that user and our own alone. Whoever could open it would read every rule, and could
// keep Envoy's answers from us.
func listenPrivately(path string, uid uint32) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of before: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for Envoy: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(path, 0o600)
	if err == nil && uid != 0 {
		err = os.Chown(path, int(uid), int(uid))
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("close the socket to others: %w", err)
	}
	return &private{Listener: l, uid: uid}, nil
}

// private refuses strangers.
type private struct {
	net.Listener
	uid uint32
}

func (p *private) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if p.admits(c) {
			return c, nil
		}
		c.Close()
	}
}

func (p *private) admits(c net.Conn) bool {
	peer, err := peerOf(c)
	if err != nil {
		return false
	}
	return peer.Uid == 0 || peer.Uid == uint32(os.Geteuid()) || p.uid != 0 && peer.Uid == p.uid
}
