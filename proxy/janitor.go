package proxy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/headgate/headgate/parsers"
)

const (
	sweepEvery   = time.Second           // time-outs
	recheckEvery = 25 * time.Millisecond // a look whether tunnels must be judged again
	collectEvery = 10 * time.Second      // conntrack
)

// watch is what the janitor remembers of a connection. Time-outs are kept by
// looking at all connections now and then, so that a connection costs neither
// timers nor clock readings while it works.
type watch struct {
	activity uint32
	active   time.Time // when activity was last seen to have changed
	requests uint32
	head     time.Time // since when the same head is arriving; zero: none
}

// janitor keeps the time-outs, and judges tunnels again when policy changes.
func (p *process) janitor(ctx context.Context) {
	sweep, look := time.NewTicker(min(sweepEvery, p.config.Limits.Head/4)), time.NewTicker(recheckEvery)
	defer sweep.Stop()
	defer look.Stop()
	seen, lagging := p.config.Connections.Revision(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			for _, c := range p.all() {
				p.sweep(c, time.Now()) // the tick's time may be long past, where we had to wait for a processor
			}
		case <-p.recheck:
			lagging = p.recheckTunnels() || lagging
		case <-look.C:
			if now := p.config.Connections.Revision(); now != seen || lagging {
				seen, lagging = now, p.recheckTunnels()
			}
		}
	}
}

// lookAtTunnels makes the janitor judge tunnels again: there is a new snapshot, or a
// tunnel that may have been judged by an old one.
func (p *process) lookAtTunnels() {
	select {
	case p.recheck <- struct{}{}:
	default:
	}
}

func (p *process) all() []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		all = append(all, c)
	}
	return all
}

// recheckTunnels judges tunnels again. Some may be behind the datapath's revision
// even then: it judges them at their next packet, which is asked for.
func (p *process) recheckTunnels() (lagging bool) {
	p.mu.Lock()
	standing := slices.Collect(maps.Keys(p.standing))
	p.mu.Unlock()
	for _, c := range standing {
		behind := c.recheck()
		c.hurry(behind)
		lagging = behind || lagging
	}
	return lagging
}

// sweep ends the connection if one of its times is over.
func (p *process) sweep(c *conn, now time.Time) {
	w, limits := &c.watch, &p.config.Limits
	phase := parsers.Phase(c.phase.Load())
	if a := c.activity.Load(); a != w.activity || w.active.IsZero() {
		w.activity, w.active = a, now
	}
	requests := c.requests.Load()
	switch {
	case phase != parsers.Head || c.tunnel.Load():
		w.head = time.Time{}
	case w.head.IsZero() || requests != w.requests:
		w.head, w.requests = now, requests
	}
	quiet, idle := now.Sub(w.active), limits.Idle
	if !c.tunnel.Load() && phase == parsers.Body || c.half.Load() {
		idle = min(idle, limits.Stall)
	}
	deadline := c.deadline.Load()
	switch {
	case deadline != 0 && now.UnixNano() > deadline:
		c.abort(false)
	case !w.head.IsZero() && now.Sub(w.head) >= limits.Head && c.abandon():
		w.head = now
		c.expire(limits.Linger)
	case !w.head.IsZero() && now.Sub(w.head) >= limits.Head:
		c.mu.Lock()
		c.malformed(c.last+1, fmt.Errorf("the request head took longer than %s", limits.Head))
		c.mu.Unlock()
		c.abort(false)
	case quiet >= idle:
		c.abort(false)
	}
}

// collect removes expired conntrack entries.
func (p *process) collect(ctx context.Context) {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			_, err := p.config.Collector.Collect(ctx, now)
			if err != nil && !failing && ctx.Err() == nil {
				p.log.Error("collect expired connections", "error", err)
			}
			failing = err != nil
		}
	}
}
