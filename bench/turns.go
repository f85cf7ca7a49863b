package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"
)

// side is one way from a client to a server.
type side struct {
	name    string
	carrier string // group of the process that carries; empty: the kernel alone does
	client  *netns
	to      netip.AddrPort
	// recorded says how many answered requests were recorded so far, and how many
	// were lost. Nil: it does not record, or nobody counts.
	recorded func() (requests, lost uint64, err error)
}

// turn is what one side did in one round.
type turn struct {
	sample
	// CPU is µs of processor time a request, by group of processes. Softirqs count
	// for the process on whose back they ran.
	CPU            map[string]float64
	Carrier        string `json:",omitempty"`
	Recorded, Lost uint64
}

// row is a side's turns, one a round.
type row struct {
	Side  string
	Turns []turn
}

// table is what all sides did with the same work. The first side is what others are
// held against.
type table struct {
	Title string
	Unit  string // of what is counted: "requests", "connections", "MB"
	Rows  []row
}

// work is what is asked of every side in turn.
type work struct {
	title, unit string
	takes       func(*side) bool // nil: every side
	loadOptions
}

// measure gives all work to all sides that take it.
func (w *world) measure(sides []side, works []work) ([]table, error) {
	sides = slices.DeleteFunc(sides, func(s side) bool { return !w.wants(w.sides, s.name) })
	for i := range sides {
		if err := w.waitFor(&sides[i], works[0]); err != nil {
			return nil, err
		}
	}
	var tables []table
	for _, do := range works {
		if !w.wants(w.works, do.title) {
			continue
		}
		taken := slices.DeleteFunc(slices.Clone(sides), func(s side) bool { return do.takes != nil && !do.takes(&s) })
		t, err := w.takeTurns(taken, do)
		if err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// waitFor waits until a side answers.
func (w *world) waitFor(s *side, first work) error {
	var err error
	for range 100 {
		try := loadOptions{Path: smallPath, Connections: 1, Streams: min(first.Streams, 1), Seconds: 0.02, Questions: first.Questions, drive: first.drive}
		if _, err = w.takeTurn(s, work{loadOptions: try}); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s does not answer: %w\n%s", s.name, err, w.logs())
}

// takeTurns has every side do the work once a round, beginning with another each
// time, so that what else the machine does falls on all of them alike.
func (w *world) takeTurns(sides []side, do work) (table, error) {
	t := table{Title: do.title, Unit: do.unit}
	for _, s := range sides {
		t.Rows = append(t.Rows, row{Side: s.name})
	}
	for round := range w.rounds {
		for i := range sides {
			k := (i + round) % len(sides)
			one, err := w.takeTurn(&sides[k], do)
			if err != nil {
				return t, fmt.Errorf("%s: %s: %w", do.title, sides[k].name, err)
			}
			t.Rows[k].Turns = append(t.Rows[k].Turns, one)
			fmt.Fprintf(os.Stderr, "%s, round %d, %-22s %10.0f/s  p50 %6.0f  p99 %6.0f µs\n", do.title, round+1, sides[k].name,
				one.perSecond(do.unit), one.P50, one.P99)
		}
	}
	return t, nil
}

func (w *world) takeTurn(s *side, do work) (t turn, err error) {
	before, err := w.used()
	if err != nil {
		return t, err
	}
	var requests, lost uint64
	if s.recorded != nil {
		if requests, lost, err = s.recorded(); err != nil {
			return t, err
		}
	}
	switch {
	case do.Questions != "":
		t.sample, err = w.dnsperf(s, do)
	case do.drive != nil:
		t.sample, err = do.drive(s, do)
	case do.Streams > 0:
		t.sample, err = w.h2load(s, do)
	default:
		t.sample, err = w.load(s, do)
	}
	if err != nil {
		return t, err
	}
	if t.Requests == 0 || t.Errors > t.Requests/1000 {
		return t, fmt.Errorf("%d requests were answered and %d failed", t.Requests, t.Errors)
	}
	time.Sleep(recordsTake)
	after, err := w.used()
	if err != nil {
		return t, err
	}
	t.CPU, t.Carrier = map[string]float64{}, s.carrier
	for group, used := range after {
		if d := used - before[group]; d > 0 && group != "setup" {
			t.CPU[group] = d / float64(t.Requests)
		}
	}
	if s.recorded != nil {
		t.Recorded, t.Lost, err = settled(s.recorded, requests+t.Requests, lost)
		t.Recorded -= requests
	}
	return t, err
}

// recordsTake is how long what was carried may still have to be recorded: that costs too.
const recordsTake = 200 * time.Millisecond

// load does the work by this program's own load.
func (w *world) load(s *side, do work) (x sample, err error) {
	out, err := w.run(s.client, "client", "", w.self, "load", "--to", s.to.String(), "--path", do.Path,
		"--connections", strconv.Itoa(do.Connections), "--seconds", strconv.FormatFloat(do.Seconds, 'g', -1, 64),
		"--reconnect="+strconv.FormatBool(do.Reconnect))
	if err != nil {
		return x, err
	}
	if err := json.Unmarshal(out, &x); err != nil {
		return x, fmt.Errorf("read what the load printed: %w: %s", err, out)
	}
	return x, nil
}

func (t *turn) perSecond(unit string) float64 {
	if unit == "MB" {
		return float64(t.Bytes) / 1e6 / t.Seconds
	}
	return float64(t.Requests) / t.Seconds
}

// spread is the middle of some figures, and the least and the greatest.
type spread struct{ Median, Least, Most float64 }

func spreadOf(figures []float64) spread {
	if len(figures) == 0 {
		return spread{}
	}
	f := slices.Sorted(slices.Values(figures))
	middle := (f[(len(f)-1)/2] + f[len(f)/2]) / 2
	return spread{middle, f[0], f[len(f)-1]}
}

// each applies a function to every turn.
func (r *row) each(f func(*turn) float64) spread {
	var all []float64
	for i := range r.Turns {
		all = append(all, f(&r.Turns[i]))
	}
	return spreadOf(all)
}

// ratio holds a row against another, round by round.
func (r *row) ratio(to *row, f func(*turn) float64) spread {
	var all []float64
	for i := range r.Turns {
		if i < len(to.Turns) && f(&to.Turns[i]) > 0 {
			all = append(all, f(&r.Turns[i])/f(&to.Turns[i]))
		}
	}
	return spreadOf(all)
}
