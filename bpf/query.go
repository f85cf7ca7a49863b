package bpf

import (
	"errors"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// queryAttempts is how often what is attached is asked for anew.
const queryAttempts = 100

// query says what is attached somewhere. The kernel is asked how much that is, and
// then what: if another agent has attached something in between, there is no room for
// it, and both are asked again.
func query(o link.QueryOptions) (*link.QueryResult, error) {
	for attempt := 1; ; attempt++ {
		r, err := link.QueryPrograms(o)
		if !errors.Is(err, unix.ENOSPC) || attempt == queryAttempts {
			return r, err
		}
	}
}
