package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// linesColumn is where values start: one column past the longest usual name.
const linesColumn = 16

// lines is a description: a name and a value a line.
type lines struct{ pairs [][2]string }

func newLines() *lines { return &lines{} }

// line adds a line; the value is escaped, an empty one is shown as "-". A line
// without a name continues the one before.
func (l *lines) line(name, value string) {
	if value = clean(value); value == "" {
		value = "-"
	}
	if name = clean(name); name != "" {
		name += ":"
	}
	l.pairs = append(l.pairs, [2]string{name, value})
}

// optional is line for what need not be shown when empty.
func (l *lines) optional(name, value string) {
	if value != "" {
		l.line(name, value)
	}
}

func (l *lines) write(w io.Writer) error {
	width := linesColumn
	for _, p := range l.pairs {
		width = max(width, utf8.RuneCountInString(p[0])+1)
	}
	var out bytes.Buffer
	for _, p := range l.pairs {
		pad := strings.Repeat(" ", width-utf8.RuneCountInString(p[0]))
		fmt.Fprintf(&out, "%s%s%s\n", p[0], pad, p[1])
	}
	_, err := w.Write(out.Bytes())
	return err
}
