package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/headgate/headgate/agent/serve"
	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/observe"
)

// SocketName is the local API's, in the run directory.
const SocketName = "headgate.sock"

// serve opens the sockets and answers until the context ends.
func (a *Agent) serve(ctx context.Context) error {
	local := grpc.NewServer()
	agentv1.RegisterAgentServer(local, &serve.Server{
		Engine: a.engine, Connector: a.connector, Maps: a.gate, Report: a.report, Learnt: a.learnt, Watch: a.monitors.Watch, Discovery: a.backend.discovery(),
	})
	a.seeing.server.Register(local)
	observer := grpc.NewServer()
	a.seeing.server.Register(observer)

	l, err := listenUnix(filepath.Join(a.cfg.RunDir, SocketName))
	if err != nil {
		return err
	}
	errs := make(chan error, 8)
	go func() { errs <- local.Serve(l) }()
	for _, addr := range a.cfg.ObserverListen {
		l, err := listenAny(addr)
		if err != nil && a.cfg.ObserverOptional {
			a.log.Warn("the Observer API is not served here", "address", addr, "error", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("listen for the Observer API: %w: choose another address with --observer-listen, or 'off'", err)
		}
		go func() { errs <- observer.Serve(l) }()
	}
	if err := a.serveMetrics(ctx, errs); err != nil {
		return err
	}
	a.log.Info("agent is ready", "socket", l.Addr(), "version", a.cfg.Version)
	select {
	case <-ctx.Done():
		err = nil
	case err = <-errs:
	}
	a.seeing.server.Close()
	stop(local)
	stop(observer)
	a.log.Info("agent stops; traffic goes on by the last policy")
	return err
}

// stop ends a server: calls that are under way get a moment.
func stop(s *grpc.Server) {
	t := time.AfterFunc(2*time.Second, s.Stop)
	defer t.Stop()
	s.GracefulStop()
}

func (a *Agent) serveMetrics(ctx context.Context, errs chan<- error) error {
	if a.cfg.MetricsListen == "" {
		return nil
	}
	l, err := net.Listen("tcp", a.cfg.MetricsListen)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", observe.Handler(a.seeing.registry))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { srv.Close() })
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			errs <- err
		}
	}()
	return nil
}

func listenAny(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		return listenUnix(path)
	}
	return net.Listen("tcp", addr)
}

// listenUnix takes the place of a socket that a dead agent left; the lock says
// that it is dead. Only root may connect.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect socket: %w", err)
	}
	return l, nil
}
