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
	rounds                               int
	seconds                              float64
	sides, works                         string // which: names, or parts of them, separated by semicolons; empty: all
	headgate, envoy, self                string
	kafkaParts, kafkaClients, kafkaProxy string
}

// wants reports whether a name is among those asked for.
func (o *options) wants(list, name string) bool {
	return list == "" || slices.ContainsFunc(strings.Split(list, ";"), func(part string) bool { return strings.Contains(name, part) })
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
	only := f.String("only", "l4,http1,http2,dns,kafka,packet", "which benchmarks, separated by commas: l4, http1, http2, dns, kafka, packet")
	where := f.String("where", "pinned,free", "pinned: what carries has a core for itself; free: all share all cores")
	out := f.String("out", "", "directory for results and plots; none are written if it is empty")
	f.IntVar(&o.rounds, "rounds", 5, "turns of each side")
	f.Float64Var(&o.seconds, "seconds", 2, "length of a turn")
	f.StringVar(&o.sides, "sides", "", "only sides whose names have one of these in them, separated by semicolons")
	f.StringVar(&o.works, "works", "", "only work whose title has one of these in it, separated by semicolons")
	f.StringVar(&o.headgate, "headgate", "bin/headgate", "the binary")
	f.StringVar(&o.envoy, "envoy", cmp.Or(os.Getenv("HEADGATE_ENVOY"), "envoy"), "stock Envoy")
	f.StringVar(&o.kafkaParts, "kafka", cmp.Or(os.Getenv("HEADGATE_KAFKA"), ".cache/kafka"), "directory of Kafka's versions")
	f.StringVar(&o.kafkaClients, "kafka-clients", "bin/kafka-clients", "the program of integration/kafka")
	f.StringVar(&o.kafkaProxy, "kafka-proxy", cmp.Or(os.Getenv("HEADGATE_KAFKA_PROXY"), "kafka-proxy"), "grepplabs/kafka-proxy; without it the others are measured alone")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if o.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := precede(os.Getpid()); err != nil {
		return fmt.Errorf("%w (run as root)", err)
	}
	for name := range strings.SplitSeq(*only, ",") {
		r := report{Name: name, Machine: thisMachine(), Rounds: o.rounds, Seconds: o.seconds}
		if name == "packet" {
			if r.Paths, err = o.packets(ctx); err != nil {
				return err
			}
		}
		for place := range strings.SplitSeq(*where, ",") {
			if name == "packet" {
				break
			}
			tables, err := o.benchmark(ctx, name, place == "pinned")
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			r.Places = append(r.Places, placed{place, tables})
		}
		fmt.Print(r.markdown())
		if *out != "" {
			if err := r.write(*out); err != nil {
				return err
			}
		}
	}
	return nil
}

// benchmark makes a world for one benchmark and takes it away again.
func (o options) benchmark(ctx context.Context, name string, pinned bool) ([]table, error) {
	w, err := newWorld(ctx, o, pinned)
	if err != nil {
		return nil, err
	}
	defer w.close()
	switch name {
	case "l4":
		return w.l4()
	case "http1":
		return w.http1()
	case "http2":
		return w.http2()
	case "dns":
		return w.dns()
	case "kafka":
		return w.kafka()
	}
	return nil, errors.New("there is no such benchmark; there are l4, http1, http2, dns, kafka and packet")
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
		return fmt.Errorf("load: %w", err)
	}
	return runLoad(o)
}
