package serve

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/bpf"
)

// networkMaps is what the listings of the node's own side read: *bpf.Gate.
type networkMaps interface {
	Devices() ([]bpf.Device, error)
	NodeAddresses() ([]netip.Addr, error)
	Fragments(func(bpf.Fragment) bool) error
}

func (s *Server) listDevices(string) (*agentv1.ListMapResponse, error) {
	devices, err := s.Maps.Devices()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Ifindex", "Name", "IPv4", "IPv6"}}
	for _, d := range devices {
		name := "-" // it is gone, and the agent has not seen it yet
		if dev, err := net.InterfaceByIndex(d.Ifindex); err == nil {
			name = dev.Name
		}
		out.Rows = append(out.Rows, row(d.Ifindex, name, orNone(d.V4), orNone(d.V6)))
	}
	sortRows(out.Rows)
	return out, nil
}

func (s *Server) listNode(string) (*agentv1.ListMapResponse, error) {
	addrs, err := s.Maps.NodeAddresses()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Address"}}
	for _, a := range addrs {
		out.Rows = append(out.Rows, row(a))
	}
	sortRows(out.Rows)
	return out, nil
}

func (s *Server) listFragments(string) (*agentv1.ListMapResponse, error) {
	out := &agentv1.ListMapResponse{Columns: []string{"Protocol", "Source", "Destination", "Datagram", "First ends at", "Expires"}}
	err := s.Maps.Fragments(func(f bpf.Fragment) bool {
		if f.Expires > 0 {
			out.Rows = append(out.Rows, row(protoName(f.Proto), f.Source, f.Destination, "0x"+strconv.FormatUint(uint64(f.ID), 16), f.End, f.Expires.Round(time.Second)))
		}
		return len(out.Rows) < maxRows
	})
	sortRows(out.Rows)
	return out, err
}

func orNone(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}
