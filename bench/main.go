package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

//go:embed envoy.yaml
var envoyConfig string

//go:embed nginx.conf
var nginxConfig string

// options are of all benchmarks.
type options struct {
	rounds                int
	seconds               float64
	sides                 string
	work                  int
	headgate, envoy, self string
}

// The main goroutine keeps the main thread: a namespace is held by another, and so
// ends with it.
func init() { runtime.LockOSThread() }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "serve":
			return serveArgs(args[1:])
		case "load":
			return loadArgs(args[1:])
		}
	}
	o := options{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := f.String("only", "", "which benchmarks, separated by commas: l4, http1, http2, packet")
	works := f.String("variants", "pinned,free", "where processes run: pinned, free")
	f.StringVar(&o.sides, "sides", "", "sides to take, separated by commas, all if empty")
	f.IntVar(&o.work, "work", -1, "only the work of this number")
	out := f.String("out", "", "directory for results; none are written if it is empty")
	f.IntVar(&o.rounds, "rounds", 5, "turns of each side")
	f.Float64Var(&o.seconds, "seconds", 2, "length of a turn")
	f.StringVar(&o.headgate, "headgate", "bin/headgate", "the binary")
	f.StringVar(&o.envoy, "envoy", cmp.Or(os.Getenv("HEADGATE_ENVOY"), "envoy"), "stock Envoy")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if o.self, err = os.Executable(); err != nil {
		return err
	}
	if err := precede(os.Getpid()); err != nil {
		return fmt.Errorf("%w (run as root)", err)
	}
	_ = only
	_ = out
	for _, variant := range strings.Split(*works, ",") {
		w, err := newWorld(ctx, o, variant == "pinned")
		if err != nil {
			return err
		}
		tables, err := w.http1()
		w.close()
		if err != nil {
			return err
		}
		for _, t := range tables {
			show(t)
		}
	}
	return nil
}

func show(t table) {
	fmt.Println(t.Title)
	for _, r := range t.Rows {
		rate := r.each(func(x *turn) float64 { return x.perSecond(t.Unit) })
		fmt.Printf("  %-12s %9.0f  [%.2f]", r.Side, rate.Median, r.ratio(&t.Rows[0], func(x *turn) float64 { return x.perSecond(t.Unit) }).Median)
		fmt.Printf(" p50 %.0f p99 %.0f", r.each(func(x *turn) float64 { return x.P50 }).Median, r.each(func(x *turn) float64 { return x.P99 }).Median)
		for _, g := range []string{"client", "server", "agent", "headgate", "envoy", "nginx"} {
			fmt.Printf(" %s %.1f", g, r.each(func(x *turn) float64 { return x.CPU[g] }).Median)
		}
		var req, rec, lost uint64
		for _, x := range r.Turns {
			req, rec, lost = req+x.Requests, rec+x.Recorded, lost+x.Lost
		}
		fmt.Printf(" recorded %d of %d lost %d\n", rec, req, lost)
	}
}

func serveArgs(args []string) error {
	var ports []uint16
	for _, a := range args {
		p, err := strconv.ParseUint(a, 10, 16)
		if err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		ports = append(ports, uint16(p))
	}
	return serve(ports)
}

func loadArgs(args []string) error {
	var o loadOptions
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	to := f.String("to", "", "address")
	f.StringVar(&o.Path, "path", smallPath, "what is asked for")
	f.IntVar(&o.Connections, "connections", 1, "at once")
	f.Float64Var(&o.Seconds, "seconds", 1, "how long")
	f.BoolVar(&o.Reconnect, "reconnect", false, "a connection for each request")
	err := f.Parse(args)
	if err == nil {
		o.To, err = netip.ParseAddrPort(*to)
	}
	if err != nil {
		return errors.Join(errors.New("load: bad arguments"), err)
	}
	return runLoad(o)
}

var _ = slices.Sort[[]int]
