package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// screen shows the story, in colour on a terminal.
type screen struct {
	w      io.Writer
	colour bool
	failed int
	passed int
}

func newScreen(f *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &screen{w: f, colour: err == nil && os.Getenv("NO_COLOR") == ""}
}

const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
)

func (s *screen) paint(colour, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (s *screen) title(text string) {
	fmt.Fprintf(s.w, "\n%s\n", s.paint(bold, "== "+text))
}

// command shows what a person would type, and where: "$" is the node.
func (s *screen) command(prompt, text string) {
	fmt.Fprintf(s.w, "%s %s\n", s.paint(dim, prompt), text)
}

func (s *screen) output(text string) {
	if text = strings.TrimRight(text, "\n"); text != "" {
		fmt.Fprintln(s.w, text)
	}
}

// verdict compares what was expected with what came.
func (s *screen) verdict(ok bool, expected, got string) {
	mark := s.paint(green, "PASS")
	if !ok {
		mark = s.paint(red, "FAIL")
	}
	s.count(ok)
	fmt.Fprintf(s.w, "   %s  expected: %s; got: %s\n", mark, expected, got)
}

// seen is a verdict on a flow.
func (s *screen) seen(what string, err error) {
	if err == nil {
		fmt.Fprintf(s.w, "   %s  %s\n", s.paint(green, "PASS"), what)
	} else {
		fmt.Fprintf(s.w, "   %s  %s: %v\n", s.paint(red, "FAIL"), what, err)
	}
	s.count(err == nil)
}

func (s *screen) count(ok bool) {
	if ok {
		s.passed++
	} else {
		s.failed++
	}
}
