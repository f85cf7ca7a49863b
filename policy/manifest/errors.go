package manifest

import (
	"fmt"
	"strings"
)

// Error is one thing that is wrong with one document, and where.
type Error struct {
	File     string
	Document int    // from 1
	Object   string // kind and name, as far as they are known
	Path     string // the field, as "spec.ingress[0].toPorts[0]"
	Message  string // what is wrong and what to write instead
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: document %d", e.File, e.Document)
	if e.Object != "" {
		s += " (" + e.Object + ")"
	}
	if e.Path != "" {
		s += ": " + e.Path
	}
	return s + ": " + e.Message
}

// Errors is everything that is wrong with a file, in its order.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.Is and errors.As each error.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i, err := range e {
		list[i] = err
	}
	return list
}
