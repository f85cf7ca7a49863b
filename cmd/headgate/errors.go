package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Exit codes of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// failure is an error of a command that was understood and then failed. Any
// other error that reaches run is wrong usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// usageError is wrong usage that only the command itself could see.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// failed marks an error that a command returned.
func failed(err error) error {
	var usage usageError
	if err == nil || errors.As(err, &usage) {
		return err
	}
	return failure{err}
}

func exitCode(err error) int {
	var f failure
	if errors.As(err, &f) {
		return exitFailed
	}
	return exitUsage
}

// errorLine is what stderr shows of an error of a command: one line.
func errorLine(err error, command string) string {
	text := err.Error()
	var f failure
	if !errors.As(err, &f) && !strings.Contains(text, "--help") {
		text += fmt.Sprintf(" (see '%s --help')", command)
	}
	return "headgate: " + oneLine(text)
}

// oneLine keeps the first line of a text and says how many more there were.
func oneLine(text string) string {
	first, rest, more := strings.Cut(strings.TrimSpace(text), "\n")
	if more {
		first = fmt.Sprintf("%s (and %d more lines)", strings.TrimSuffix(first, ";"), 1+strings.Count(rest, "\n"))
	}
	return clean(first)
}

// explain puts the answer of an agent that refused into plain words. hint says
// what to do when the thing asked for was refused; it may be empty.
func explain(socket string, err error, hint string) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.OK:
		return nil
	case codes.Unavailable:
		return fmt.Errorf("lost the agent at %s: %s; see its log, then 'headgate status'", socket, s.Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("the agent at %s did not finish in time%s; see 'headgate status'", socket, detail(s.Message()))
	case codes.Canceled:
		return errors.New("interrupted; what the agent had begun may be done: see 'headgate status'")
	case codes.Unimplemented:
		return fmt.Errorf("the agent at %s does not know this request; compare versions with 'headgate version'", socket)
	case codes.ResourceExhausted:
		return fmt.Errorf("no room: %s; see 'headgate status'", s.Message())
	}
	message := strings.TrimRight(oneLine(s.Message()), ". ")
	if hint != "" && refused(s.Code()) {
		return fmt.Errorf("%s; %s", message, hint)
	}
	return errors.New(message)
}

// refused reports whether the request was at fault, not the agent.
func refused(c codes.Code) bool {
	switch c {
	case codes.NotFound, codes.InvalidArgument, codes.FailedPrecondition, codes.AlreadyExists, codes.OutOfRange:
		return true
	}
	return false
}

// detail is an agent's words on a failure, unless they only name the deadline.
func detail(message string) string {
	if message == "" || strings.Contains(message, context.DeadlineExceeded.Error()) {
		return ""
	}
	return ": " + message
}
