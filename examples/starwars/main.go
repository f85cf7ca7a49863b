// Command starwars tells the Star Wars demo on real packets: a Death Star with
// an HTTP API, a tiefighter of the empire and an xwing of the alliance, each in
// a network namespace of its own, and headgate between them. It runs bin/headgate
// as a person would, shows every answer, compares it with what the policy says,
// and removes everything it made.
//
//	starwars              run the story
//	starwars --keep       run it and leave it running, to try things by hand
//	starwars cleanup DIR  remove what --keep left
//	starwars in NETNS CMD run a command in a network namespace
//	starwars etc DIR CMD  run a command that sees DIR's files in /etc
//	starwars deathstar    be the Death Star
//	starwars ship URL     be a ship: the little of curl that the story needs
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// exitError is the exit code of a command that was run in our place.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func run(ctx context.Context, args []string) int {
	err := dispatch(ctx, args)
	var code exitError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "starwars:", err)
	return 1
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) > 0 {
		rest := args[1:]
		switch args[0] {
		case "deathstar":
			return runDeathstar(ctx, rest, os.Stdout)
		case "ship":
			return runShip(ctx, rest, os.Stdout, os.Stderr)
		case "in":
			return runIn(rest)
		case "etc":
			return runEtc(rest)
		case "cleanup":
			return runCleanup(rest)
		}
	}
	return runStory(ctx, args)
}

// options of the story.
type options struct {
	headgate string
	policies string
	keep     bool
	curl     string // path of the client, "" for the ship of this program
	self     string
}

func parseOptions(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("starwars", flag.ContinueOnError)
	f.StringVar(&o.headgate, "headgate", "bin/headgate", "the headgate `binary` to run")
	f.StringVar(&o.policies, "policies", "examples/starwars", "`directory` of l3-l4.yaml and l7.yaml")
	f.BoolVar(&o.keep, "keep", false, "leave everything running and say what to try by hand")
	f.StringVar(&o.curl, "curl", findCurl(), "client of the ships; empty: the client of this program")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown command %q: write deathstar, ship, in, etc or cleanup", f.Arg(0))
	}
	var err error
	if o.self, err = os.Executable(); err != nil {
		return o, fmt.Errorf("find this program: %w", err)
	}
	for _, file := range []string{o.headgate, o.policies} {
		if _, err := os.Stat(file); err != nil {
			return o, fmt.Errorf("find %s: %w; run 'make demo' in the top directory of headgate", file, errors.Unwrap(err))
		}
	}
	if os.Geteuid() != 0 {
		return o, errors.New("needs root, for network namespaces and BPF: run it with sudo")
	}
	return o, nil
}
