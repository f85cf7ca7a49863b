package fqdn

import (
	"maps"
	"slices"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// The gate goes by the table that an endpoint had before until the agent has told it of the
// new one. An agent that dies in between never does: how long that lasts nobody knows. So a
// table stays as long as the gate goes by it, and who knows that is the gate.

// tableStays is how long a table is kept that the gate has left: a packet may still be judged
// by it.
const tableStays = 5 * time.Second

// setTable gives an endpoint a table, and keeps that which it had, for the gate has still to be
// told, and that which it has there.
func (s *Store) setTable(h *host, table uint32) {
	current := h.current()
	if table == current {
		return
	}
	before := append([]uint32{current}, s.inGate(h)...)
	h.since = s.now()
	h.tables = []uint32{table} // also if it has none now
	for _, t := range before {
		if t != 0 && !slices.Contains(h.tables, t) {
			h.tables = append(h.tables, t)
		}
	}
	if len(h.tables) == 1 && table == 0 {
		h.tables = nil
	}
}

// current is the table that the agent wants an endpoint to have; 0: none.
func (h *host) current() uint32 {
	if len(h.tables) == 0 {
		return 0
	}
	return h.tables[0]
}

// inGate are the tables by which the gate judges an endpoint, of those that it has here; where
// that cannot be told, all of them.
func (s *Store) inGate(h *host) []uint32 {
	var out []uint32
	for _, a := range h.addrs {
		t, err := s.config.Gate.NameTable(a)
		if err != nil {
			s.log.Error("cannot tell by what the gate judges an endpoint, so what it was judged by before stays", "endpoint", h.name, "error", err)
			return h.tables
		}
		if slices.Contains(h.tables, t) {
			out = append(out, t)
		}
	}
	return out
}

// dropOldTables forgets the tables that the gate no longer goes by.
func (s *Store) dropOldTables() {
	if s.updating { // the gate has still to be told
		return
	}
	now := s.now()
	used := map[uint32]bool{}
	for _, h := range s.hosts {
		if len(h.tables) > 1 && now.Sub(h.since) > tableStays {
			in := s.inGate(h)
			h.tables = slices.DeleteFunc(h.tables, func(t uint32) bool { return t != h.tables[0] && !slices.Contains(in, t) })
		}
		for _, t := range h.tables {
			used[t] = true
		}
	}
	if s.names == nil {
		return
	}
	for t := range s.names.Tables {
		if !used[t] {
			delete(s.names.Tables, t) // ours: withTablesOfBefore made the map
		}
	}
}

// updated ends an update that began at some time. Only now the gate is told of new tables.
func (s *Store) updated(start time.Time) {
	s.updating = false
	for _, h := range s.hosts {
		if !h.since.Before(start) {
			h.since = s.now()
		}
	}
}

// withTablesOfBefore adds the tables that endpoints may still have in the gate.
func (s *Store) withTablesOfBefore(n *redirect.Names) *redirect.Names {
	out := *n
	out.Tables = maps.Clone(n.Tables)
	if out.Tables == nil {
		out.Tables = map[uint32]*policy.NameTable{}
	}
	if s.names == nil {
		return &out
	}
	kept := false
	for _, h := range s.hosts {
		for _, number := range h.tables {
			if t := s.names.Tables[number]; t != nil && out.Tables[number] == nil {
				out.Tables[number], kept = t, true
			}
		}
	}
	if kept { // and what their entries are called
		out.Rules, out.Sets = maps.Clone(s.names.Rules), maps.Clone(s.names.Sets)
		if out.Rules == nil {
			out.Rules = map[policy.Ref]uint32{}
		}
		if out.Sets == nil {
			out.Sets = map[policy.SetID]redirect.SetNumber{}
		}
		maps.Copy(out.Rules, n.Rules)
		maps.Copy(out.Sets, n.Sets)
	}
	return &out
}
