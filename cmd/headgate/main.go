// Command headgate is the whole of headgate in one binary: the agent that
// decides, the proxy that carries application traffic, and the commands that
// talk to a running agent over its unix socket.
//
// This directory is wiring only. What the commands do is in the packages of
// this module.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}
