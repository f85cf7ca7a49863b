package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/proxy/epoll"
)

// Run is the proxy process. It returns when ctx ends, a SIGTERM or SIGINT
// arrives or a drain is complete; connections get Limits.Grace to end.
func Run(ctx context.Context, config Config) error {
	config = config.withDefaults()
	if config.API == nil || config.Connections == nil {
		return errors.New("run proxy: Config wants an API listener and Connections")
	}
	if os.Geteuid() == 0 && !config.AllowRoot {
		return errors.New("run proxy: refusing to parse what strangers send as root; the agent starts the proxy as a user of its own")
	}
	if !config.AllowRoot {
		lockDown(config)
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()

	p, err := newProcess(life, config)
	if err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	defer p.loops.Stop()
	if err := p.openNames(); err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	if err := p.closeShortcut(); err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	listeners, port, err := p.listenAll(life, config)
	if err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	p.port = port
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	failed := make(chan error, len(listeners)+1)
	if d := p.dns; d != nil {
		defer d.close()
		failed = make(chan error, len(listeners)+1+len(d.workers))
		for _, w := range d.workers {
			running.Go(func() {
				if err := w.run(); err != nil {
					failed <- err
				}
			})
		}
		running.Go(func() { d.sweep(life) })
		running.Go(func() { d.collector.collects(life.Done()) })
		running.Go(func() { d.records(life) })
	}
	for _, l := range listeners {
		defer l.Close()
		running.Go(func() {
			if err := p.accept(l); err != nil {
				failed <- err
			}
		})
	}
	running.Go(func() { p.janitor(life) })
	if p.learnt != nil {
		running.Go(func() { p.learnt.Run(life) })
	}
	if config.Collector != nil {
		running.Go(func() { p.collect(life) })
	}
	api := p.newAPI()
	defer api.Stop()
	running.Go(func() {
		if err := api.Serve(config.API); err != nil && life.Err() == nil {
			failed <- fmt.Errorf("serve API: %w", err)
		}
	})
	p.log.Info("proxy is up", "version", config.Version, "port", port, "pid", os.Getpid())

	defer p.names.Close()
	err = p.waitForEnd(ctx, failed, listeners)
	for _, c := range p.all() {
		c.abort(false)
	}
	if err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	return nil
}

// waitForEnd returns when the process is to end, its grace periods included.
func (p *process) waitForEnd(ctx context.Context, failed <-chan error, listeners []*listener) error {
	var over <-chan time.Time // of the grace
	var look <-chan time.Time
	done := ctx.Done()
	var began time.Time
	begin := func(grace time.Duration) {
		began = time.Now()
		p.draining.Store(true)
		p.names.Close()
		for _, l := range listeners {
			_ = l.Close()
		}
		over = time.After(grace)
		look = time.Tick(20 * time.Millisecond)
	}
	stopping := false
	for {
		select {
		case <-done:
			done, stopping = nil, true
			begin(p.config.Limits.Grace)
		case grace := <-p.drain:
			p.handOverNames()
			p.log.Info("proxy drains", "grace", grace, "connections", p.open())
			begin(grace)
		case <-look:
			if stopping {
				p.endIdle()
			}
			if p.open() == 0 && p.dns.quiet(began) {
				return nil
			}
		case <-over:
			return nil
		case err := <-failed:
			return err
		}
	}
}

// endIdle closes the connections on which nothing is under way.
func (p *process) endIdle() {
	for _, c := range p.all() {
		phase := parsers.Phase(c.phase.Load())
		if phase == parsers.Idle || phase == parsers.Ended {
			c.abort(false)
		}
	}
}

// lockDown gives up what the process will not need. Failing is no reason not to
// run: the process was started without privileges, by the agent without new ones too.
func lockDown(config Config) {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errno != 0 { // with cgo it is not available, and this thread alone is what can be had
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			config.Logger.Warn("give up new privileges", "error", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		config.Logger.Warn("forbid dumps", "error", err)
	}
}

// listener is one that the loops know too.
type listener struct {
	net.Listener
	sock *epoll.Socket
}

func (p *process) listener(l net.Listener) (*listener, error) {
	own, ok := l.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("listen on %s: %T has no socket", l.Addr(), l)
	}
	sock, err := p.loops.Pick().Adopt(own, nil)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", l.Addr(), err)
	}
	// Inherited by what is accepted.
	err = sock.Control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) })
	return &listener{l, sock}, err
}

func (l *listener) Close() error {
	l.sock.Close()
	return l.Listener.Close()
}

// listenAll listens on every address with the same free port, for connections and for
// datagrams.
func (p *process) listenAll(ctx context.Context, config Config) ([]*listener, uint16, error) {
	var last error
	for range 20 {
		var all []*listener
		port := uint16(0)
		for _, a := range config.Addresses {
			l, err := config.Listen(ctx, netip.AddrPortFrom(a, port))
			if err != nil {
				last = fmt.Errorf("listen on %s: %w", a, err)
				break
			}
			own, err := p.listener(l)
			if err != nil {
				_ = l.Close()
				last = err
				break
			}
			all = append(all, own)
			port = addrPort(l.Addr()).Port()
		}
		if len(all) == len(config.Addresses) {
			if last = p.listenDNS(ctx, port); last == nil {
				return all, port, nil
			}
		}
		for _, l := range all {
			_ = l.Close()
		}
		if !errors.Is(last, unix.EADDRINUSE) {
			break
		}
	}
	return nil, 0, last
}
