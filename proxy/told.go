package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers/dns"
	"github.com/headgate/headgate/policy"
)

// Turn is had by one process at a time.
type Turn interface {
	// Take reports whether it is this process's, from now until Leave or its end.
	Take() bool
	Leave()
}

// OpenTurn opens a file in a directory whose lock is the turn.
func OpenTurn(directory int, name string) (Turn, error) {
	fd, err := unix.Openat(directory, name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return fileTurn{os.NewFile(uintptr(fd), name)}, nil
}

type fileTurn struct{ file *os.File }

func (f fileTurn) Take() bool {
	return unix.Flock(int(f.file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

func (f fileTurn) Leave() { _ = unix.Flock(int(f.file.Fd()), unix.LOCK_UN) }

const (
	// recordsLeast and recordsMost are how often what took the shortcut is looked for, under
	// load and in quiet times.
	recordsLeast, recordsMost = 10 * time.Millisecond, 80 * time.Millisecond
	// turnEvery is how often a process that takes over tries to.
	turnEvery = 50 * time.Millisecond
)

// records records what took the shortcut, questions and answers, while that is this process's
// turn: one that takes over waits for the one before, which leaves when it is to end.
func (d *dnsServer) records(ctx context.Context) {
	c, turn := d.p.config.Shortcut, d.p.config.ShortcutTurn
	if c == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := time.NewTicker(turnEvery)
	defer tick.Stop()
	for turn != nil && !turn.Take() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	if turn != nil {
		defer turn.Leave()
	}
	go d.countLost(ctx, cancel)
	for ctx.Err() == nil {
		err := c.Read(ctx, recordsLeast, recordsMost, d.recorder.record)
		if err == nil {
			return
		}
		// What nobody would see must not go on.
		d.p.log.Error("questions that take the shortcut are not recorded: none takes it", "error", errors.Join(err, d.p.closeShortcut()))
		select {
		case <-ctx.Done():
		case <-time.After(readAgain):
		}
	}
}

// readAgain is when what could not be read is tried again.
const readAgain = time.Second

// countLost counts what found no room, and ends the turn when another process serves.
func (d *dnsServer) countLost(ctx context.Context, leave func()) {
	tick := time.NewTicker(turnEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if d.p.draining.Load() || !d.p.serves() {
			leave()
		}
		if lost, err := d.p.config.Shortcut.TakeLost(); err == nil && lost > 0 {
			d.p.ring.lose(2 * lost)
		}
	}
}

// record records a question and its answer that took the shortcut.
func (w *dnsWorker) record(client, server netip.AddrPort, asked, answered time.Duration, query, answer []byte) {
	defer w.survive(client, server)
	d := w.d
	d.counts.queries.Add(1)
	d.counts.shortcut.Add(1)
	w.now = time.Now()
	known, ok := w.lookup(client, server)
	if !ok {
		d.counts.unknown.Add(1) // it is gone since
		d.p.ring.lose(2)
		return
	}
	if w.asked.ParseQuery(query) != nil || w.answer.ParseAnswer(answer) != nil || w.answer.Find(&w.found) != nil {
		d.counts.malformed.Add(1) // the datapath reads more strictly
		return
	}
	x := &w.exchange
	*x = dnsExchange{client: client, server: server, known: known, udp: true, at: w.wall(asked), word: observe.Forwarded}
	x.name, x.typ = w.asked.AppendName(w.name[:0]), w.asked.Type
	d.p.requests.Add(1)
	decision, direction := w.decide(x)
	if decision.Verdict != policy.Allow || decision.Audit != nil { // the rules have changed since
		decision = policy.Decision{Verdict: policy.Allow, Reason: "by rules that are no longer in force"}
	}
	x.decide(&decision, direction)
	d.counts.answers.Add(1)
	d.counts.told.Add(1)
	w.writer.question(x)
	w.writer.outcome(x.at, dns.NoError, &w.found, w.wall(answered), nil)
	w.writer.add(w.writer.shared, w.writer.asked, w.writer.rest)
}
