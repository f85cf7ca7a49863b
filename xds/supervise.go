package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// supervise keeps an Envoy running until the context ends, which leaves it alone.
// One of an earlier agent with the same settings is taken over; its configuration comes
// back with its stream, so that nothing is changed in it.
func (b *Backend) supervise(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		since := time.Now()
		err := b.attend(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(since) >= steadyAfter {
			pause = 0
		}
		b.log.Error("Envoy lost", "error", err, "again_in", pause)
		b.noteProcess(0, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(max(2*pause, 100*time.Millisecond), backOffMost)
	}
}

// attend adopts or starts an Envoy and says why it was lost.
func (b *Backend) attend(ctx context.Context) error {
	p, adopted, err := b.find()
	if err != nil {
		return err
	}
	defer p.close()
	b.noteProcess(p.PID, nil)
	h := handingOf(p, adopted)
	for ctx.Err() == nil {
		if p.ended(watchEvery) {
			return fmt.Errorf("process %d ended, see %s: %s", p.PID, b.file(logName), lastLine(b.file(logName)))
		}
		if err := b.watchHanding(p, h, time.Now()); err != nil {
			err = fmt.Errorf("process %d is ended, with its connections: %w", p.PID, err)
			return errors.Join(err, b.endBoth(p))
		}
		if err := b.watchDraining(p); err != nil {
			b.log.Error("end an Envoy that drains", "error", err)
		}
	}
	return ctx.Err()
}

// find has an Envoy run: the one that does, one that follows it, or one that starts anew.
func (b *Backend) find() (p *process, adopted bool, err error) {
	p = running(b.config.Dir)
	switch {
	case p == nil:
		if err = endUnknown(b.config.Dir); err == nil {
			b.draining.Store(nil)
			p, err = b.startProcess(nil)
		}
	case p.Settings != b.settings:
		p, err = b.replace(p)
	default:
		b.log.Info("Envoy adopted", "pid", p.PID)
		return p, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	b.log.Info("Envoy started", "pid", p.PID)
	return p, false, nil
}

// lastLine is what Envoy said last; when it does not start, that is why.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 4096
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, end-most), io.SeekStart)
	}
	text, _ := io.ReadAll(io.LimitReader(f, most))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// watchEvery bounds how long the end of the context is not seen.
const watchEvery = 200 * time.Millisecond

func (b *Backend) noteProcess(pid int, err error) {
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	b.pid, b.lost = pid, ""
	if err != nil {
		b.lost = err.Error()
	}
}
