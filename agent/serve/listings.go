package serve

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/bpf"
)

// numeric are the columns of all listings whose cells are numbers.
func numeric() []string {
	return []string{
		"Table", "Subject", "Identity", "Id", "Ifindex", "Proxy port", "Packets", "Bytes", "Replies", "Reply bytes", "Revision",
		"Source identity", "Destination identity", "Connections", "Entries", "Limit", "Percent", "Lost", "Waiting", "First ends at",
	}
}

func numbers(out *agentv1.ListMapResponse) []uint32 {
	var columns []uint32
	for i, name := range out.Columns {
		if slices.Contains(numeric(), name) {
			columns = append(columns, uint32(i))
		}
	}
	return columns
}

// filled says how much of a map is taken.
func (s *Server) filled(name string) (entries, limit uint32) {
	if name == "ct" || name == "nat" {
		name += "-tcp"
	}
	all, err := s.Maps.Usage()
	if err != nil {
		return 0, 0
	}
	for _, u := range all {
		if u.Map == name {
			return uint32(u.Entries), uint32(u.Limit)
		}
	}
	return 0, 0
}

func (s *Server) listSubjects(string) (*agentv1.ListMapResponse, error) {
	names, err := s.subjects("")
	if err != nil {
		return nil, err
	}
	settings, _, err := s.Maps.Settings()
	if err != nil {
		return nil, err
	}
	all, err := s.Maps.Subjects()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Subject", "Endpoints", "State", "Ingress prefix lengths", "Egress prefix lengths"}}
	for _, x := range all {
		who := names[x.Number]
		if x.Number == settings.HostSubject {
			who = append(who, "host")
		}
		state := "open"
		if x.Closed {
			state = "closed"
		}
		out.Rows = append(out.Rows, row(x.Number, who, state, bits(x.Lengths[0]), bits(x.Lengths[1])))
	}
	sortRows(out.Rows)
	return out, nil
}

// bits lists the bits that are set.
func bits(mask uint32) string {
	var out []string
	for i := range 32 {
		if mask&(1<<i) != 0 {
			out = append(out, strconv.Itoa(i))
		}
	}
	if out == nil {
		return "-"
	}
	return strings.Join(out, ",")
}

func (s *Server) listConfig(string) (*agentv1.ListMapResponse, error) {
	c, revision, err := s.Maps.Settings()
	if err != nil {
		return nil, err
	}
	return &agentv1.ListMapResponse{Columns: []string{"Name", "Value"}, Rows: []*agentv1.Row{
		row("host-firewall", c.Host), row("host-subject", c.HostSubject), row("reset-on-revoke", c.Reset), row("revision", revision), row("share", c.Share),
	}}, nil
}

func (s *Server) listEvents(string) (*agentv1.ListMapResponse, error) {
	lost, err := s.Maps.Lost()
	if err != nil {
		return nil, err
	}
	waiting, limit := s.filled("events")
	return &agentv1.ListMapResponse{Columns: []string{"Waiting", "Limit", "Lost"}, Rows: []*agentv1.Row{row(waiting, limit, lost)}}, nil
}

func (s *Server) listShares(string) (*agentv1.ListMapResponse, error) {
	eps, err := s.Maps.Endpoints()
	if err != nil {
		return nil, err
	}
	names := map[uint16]string{bpf.ShareHost: "host", bpf.ShareAsked: "host, asked", bpf.ShareTransit: "transit"}
	for _, e := range eps {
		if info, ok := s.Engine.Endpoint(e.Addr); ok {
			names[e.ID] = info.Namespace + "/" + info.Name
		}
	}
	settings, _, err := s.Maps.Settings()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Id", "Endpoint", "Connections", "Limit"}}
	for _, x := range s.Maps.Shares() {
		out.Rows = append(out.Rows, row(x.Endpoint, names[x.Endpoint], x.Open, settings.Share))
	}
	return out, nil
}

func (s *Server) listOpen(string) (*agentv1.ListMapResponse, error) {
	ports, err := s.Maps.OpenPorts()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Direction", "Port"}}
	for _, p := range ports {
		out.Rows = append(out.Rows, row(p.Direction, fmt.Sprintf("%d/%s", p.Port, protoName(p.Proto))))
	}
	sortRows(out.Rows)
	return out, nil
}

func (s *Server) listUsage(string) (*agentv1.ListMapResponse, error) {
	all, err := s.Maps.Usage()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Map", "Entries", "Limit", "Percent", "When full"}}
	for _, u := range all {
		full := "refuses"
		if u.Evicts {
			full = "evicts"
		}
		out.Rows = append(out.Rows, row(u.Map, u.Entries, u.Limit, u.Percent(), full))
	}
	return out, nil
}
