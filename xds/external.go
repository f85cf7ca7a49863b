package xds

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/headgate/headgate/redirect"
)

// ExternalOptions are the bootstrap's of an Envoy that somebody else starts, for the
// agent with this run directory.
func ExternalOptions(runDir, nodeID string) BootstrapOptions {
	dir := Dir(runDir)
	return BootstrapOptions{NodeID: nodeID, Socket: filepath.Join(dir, SocketName), Admin: filepath.Join(dir, adminName)}
}

// prepareExternal makes what an Envoy finds that somebody else starts: a way to our
// socket for its user, and a directory for its admin interface.
func (b *Backend) prepareExternal() error {
	if p := running(b.config.Dir); p != nil { // that an agent with other settings has left
		defer p.close()
		if err := p.end(); err != nil {
			return err
		}
	}
	if err := errors.Join(endUnknown(b.config.Dir), removeStale(b.file(processName))); err != nil {
		return err
	}
	admin, uid := filepath.Dir(b.file(adminName)), int(b.config.UID)
	err := os.MkdirAll(admin, 0o700)
	if err == nil && uid != 0 {
		err = os.Chown(admin, uid, uid)
	}
	if err != nil {
		return fmt.Errorf("make the directory of Envoy's admin interface: %w", err)
	}
	return nil
}

// externalStatus says of an Envoy that somebody else runs where it is.
func (b *Backend) externalStatus(s *redirect.Status) {
	s.PID = b.guard.process()
	switch {
	case s.State == "ready":
	case s.PID != 0:
		s.Detail = fmt.Sprintf("envoy (process %d) lives and is not connected: it goes on by the last rules it took; a change that it cannot be told ends it", s.PID)
	default:
		s.Detail += ": start it with what 'headgate xds bootstrap' prints"
	}
}
