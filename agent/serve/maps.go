package serve

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Maps are the kernel's own tables: *bpf.Gate.
type Maps interface {
	Endpoints() ([]bpf.Endpoint, error)
	Identities() (map[netip.Prefix]policy.Identity, error)
	Policies() (map[uint32]bpf.PolicyTable, error)
	Routes() (map[bpf.Route]uint16, error)
	Drops() ([]bpf.Drop, error)
	Usage() ([]bpf.Usage, error)
	Subjects() ([]bpf.Subject, error)
	Settings() (bpf.Settings, uint32, error)
	OpenPorts() ([]bpf.OpenPort, error)
	Shares() []bpf.Share
	Lost() (uint64, error)
	Conntrack() *bpf.Conntrack
	Translations(func(bpf.Translation) bool) error
	Names() *bpf.Names
	NameTables() (map[uint32]uint32, error)
	serviceMaps
	networkMaps
}

// maxRows bounds an answer: a conntrack of a million entries is no listing.
const maxRows = 20000

// ListMap implements agentv1.AgentServer.
func (s *Server) ListMap(_ context.Context, r *agentv1.ListMapRequest) (*agentv1.ListMapResponse, error) {
	lists := map[string]func(string) (*agentv1.ListMapResponse, error){
		"policy": s.listPolicyMap, "ct": s.listConntrack, "ipcache": s.listIPCache,
		"endpoints": s.listEndpointMap, "routes": s.listRoutes, "drops": s.listDrops, "nat": s.listNAT,
		"services": s.listServices, "fragments": s.listFragments, "devices": s.listDevices, "node": s.listNode,
		"subjects": s.listSubjects, "config": s.listConfig, "events": s.listEvents, "names": s.listNameMap, "name-rules": s.listNameRules, "shares": s.listShares, "open": s.listOpen, "usage": s.listUsage,
	}
	list := lists[r.Map]
	if list == nil {
		return nil, status.Errorf(codes.InvalidArgument, "there is no map %q", r.Map)
	}
	if r.Endpoint != "" {
		if _, err := s.Engine.GetEndpoint(r.Endpoint); err != nil {
			return nil, grpcError(err)
		}
	}
	out, err := list(r.Endpoint)
	if err != nil {
		return nil, grpcError(err)
	}
	out.Numbers = numbers(out)
	out.Entries, out.Capacity = s.filled(r.Map)
	return out, nil
}

func row(cells ...any) *agentv1.Row {
	r := &agentv1.Row{}
	for _, c := range cells {
		if list, ok := c.([]string); ok {
			c = strings.Join(list, ",")
		}
		r.Cells = append(r.Cells, fmt.Sprint(c))
	}
	return r
}

func sortRows(rows []*agentv1.Row) {
	slices.SortFunc(rows, func(a, b *agentv1.Row) int { return slices.Compare(a.Cells, b.Cells) })
}

// subjects says which table each endpoint has, as the kernel knows it.
func (s *Server) subjects(of string) (map[uint32][]string, error) {
	eps, err := s.Maps.Endpoints()
	if err != nil {
		return nil, err
	}
	out := map[uint32][]string{}
	for _, e := range eps {
		name := strconv.Itoa(int(e.ID))
		if info, ok := s.Engine.Endpoint(e.Addr); ok {
			name = info.Namespace + "/" + info.Name
		}
		if (of == "" || of == name) && !slices.Contains(out[e.Subject], name) {
			out[e.Subject] = append(out[e.Subject], name)
		}
	}
	return out, nil
}

func (s *Server) listPolicyMap(of string) (*agentv1.ListMapResponse, error) {
	subjects, err := s.subjects(of)
	if err != nil {
		return nil, err
	}
	tables, err := s.Maps.Policies()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Subject", "Endpoints", "Direction", "Peer", "Protocol", "Port", "Verdict", "L7 set", "Rule"}}
	for n, table := range tables {
		if of != "" && subjects[n] == nil {
			continue
		}
		for k, e := range table {
			out.Rows = append(out.Rows, row(n, subjects[n], k.Direction, peerName(k.Peer), protoName(k.Proto), portName(k), e.Verdict,
				setName(e.Set), s.Engine.Reference(e.Rule)))
		}
	}
	sortRows(out.Rows)
	return out, nil
}

func (s *Server) listConntrack(of string) (*agentv1.ListMapResponse, error) {
	out := &agentv1.ListMapResponse{Columns: []string{"Protocol", "Source", "Source identity", "Destination", "Destination identity", "State", "Egress set", "Ingress set", "Revision", "Expires", "Packets", "Replies", "Bytes", "Reply bytes"}}
	err := s.Maps.Conntrack().All(func(c bpf.Connection) bool {
		if c.Expires <= 0 || (of != "" && !s.is(c.Source.Addr(), of) && !s.is(c.Destination.Addr(), of)) {
			return true
		}
		out.Rows = append(out.Rows, row(protoName(c.Proto), c.Source, c.SourceIdentity, c.Destination, c.DestinationIdentity,
			connectionState(c), setName(c.Egress), setName(c.Ingress), c.Revision, c.Expires.Round(time.Second),
			c.Packets[0], c.Packets[1], c.Bytes[0], c.Bytes[1]))
		return len(out.Rows) < maxRows
	})
	sortRows(out.Rows)
	return out, err
}

func (s *Server) listNAT(of string) (*agentv1.ListMapResponse, error) {
	out := &agentv1.ListMapResponse{Columns: []string{"Protocol", "Source", "Node", "Remote", "State"}}
	err := s.Maps.Translations(func(t bpf.Translation) bool {
		if of != "" && !s.is(t.Source.Addr(), of) {
			return true
		}
		state := "free"
		switch {
		case t.Live && t.Settled:
			state = "established"
		case t.Live:
			state = "in use"
		}
		out.Rows = append(out.Rows, row(protoName(t.Proto), t.Source, t.Node, t.Remote, state))
		return len(out.Rows) < maxRows
	})
	sortRows(out.Rows)
	return out, err
}

func (s *Server) is(a netip.Addr, endpoint string) bool {
	info, ok := s.Engine.Endpoint(a)
	return ok && info.Namespace+"/"+info.Name == endpoint
}

func connectionState(c bpf.Connection) string {
	state := "opening"
	switch {
	case c.Denied:
		state = "denied"
	case c.Closing:
		state = "closing"
	case c.SeenReply:
		state = "established"
	}
	if c.Service != 0 {
		state += ",service"
	}
	if c.ProxyLeg {
		return state + ",proxy-leg"
	}
	if c.Redirected {
		return state + ",redirected"
	}
	return state
}

func (s *Server) listIPCache(string) (*agentv1.ListMapResponse, error) {
	ids, err := s.Maps.Identities()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Prefix", "Identity", "Labels"}}
	for p, id := range ids {
		out.Rows = append(out.Rows, row(p, id, s.Engine.Identity(id)))
	}
	sortRows(out.Rows)
	return out, nil
}

func (s *Server) listEndpointMap(string) (*agentv1.ListMapResponse, error) {
	eps, err := s.Maps.Endpoints()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Address", "Id", "Ifindex", "Identity", "Subject", "MAC", "Ready"}}
	for _, e := range eps {
		out.Rows = append(out.Rows, row(e.Addr, e.ID, e.Ifindex, e.Identity, e.Subject, e.MAC, e.Ready))
	}
	sortRows(out.Rows)
	return out, nil
}

func (s *Server) listRoutes(string) (*agentv1.ListMapResponse, error) {
	routes, err := s.Maps.Routes()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Egress set", "Ingress set", "Proxy port"}}
	for r, port := range routes {
		out.Rows = append(out.Rows, row(setName(r.Egress), setName(r.Ingress), port))
	}
	sortRows(out.Rows)
	return out, nil
}

func (s *Server) listDrops(string) (*agentv1.ListMapResponse, error) {
	drops, err := s.Maps.Drops()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Reason", "Direction", "Packets", "Bytes"}}
	for _, d := range drops {
		reason := "forwarded"
		if d.Reason != 0 {
			reason = observe.DropReason(d.Reason).String()
		}
		out.Rows = append(out.Rows, row(reason, d.Direction, d.Packets, d.Bytes))
	}
	return out, nil
}

func peerName(id policy.Identity) string {
	if id == 0 {
		return "any"
	}
	return strconv.Itoa(int(id))
}

func protoName(p policy.Proto) string {
	names := map[policy.Proto]string{
		policy.ProtoAny: "any", policy.ProtoTCP: "TCP", policy.ProtoUDP: "UDP", policy.ProtoSCTP: "SCTP",
		policy.ProtoICMP: "ICMP", policy.ProtoICMPv6: "ICMPv6",
	}
	if n, ok := names[p]; ok {
		return n
	}
	return strconv.Itoa(int(p))
}

func portName(k policy.Key) string {
	switch k.PrefixBits {
	case 0:
		return "any"
	case 16:
		return strconv.Itoa(int(k.Port))
	}
	return fmt.Sprintf("%d-%d", k.Port, uint32(k.Port)+1<<(16-k.PrefixBits)-1)
}

// setName is how an L7 set is called in listings: its protocol and number.
func setName(n uint32) string {
	if n == 0 {
		return "-"
	}
	p := redirect.SetNumber(n).Protocol()
	if n&0xffffff == 0xffffff {
		return p.String() + "/any"
	}
	return fmt.Sprintf("%s/%d", p, n&0xffffff)
}
