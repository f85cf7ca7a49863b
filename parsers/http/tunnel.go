package http

import "github.com/headgate/headgate/parsers"

// tunnel moves all that is still to come, of both sides, without looking at it.
func (s *Session) tunnel() {
	s.client.state, s.server.state = tunnelling, tunnelling
	s.client.past, s.client.waits = false, false
	s.queue.clear()
}

// carry is what either side's bytes get in a tunnel.
func (s *Session) carry() int64 {
	s.move(parsers.Forward, parsers.Unbounded)
	return parsers.Unbounded
}

// tunnelEnd is the end of one direction. The other may go on.
func (s *Session) tunnelEnd(from parsers.Side) {
	told := &s.client.fin
	if from == parsers.Server {
		told = &s.server.fin
	}
	if !*told {
		*told = true
		s.steps = append(s.steps, parsers.Step{Op: parsers.CloseWrite, To: from.Peer()})
	}
	if s.client.fin && s.server.fin {
		s.end()
	}
}
