package serve

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/policy"
)

// maxNames bounds what is asked of the proxy for one listing.
const maxNames = 200_000

// ListNames implements agentv1.AgentServer: the proxy is asked, which knows.
func (s *Server) ListNames(ctx context.Context, r *agentv1.ListNamesRequest) (*agentv1.ListNamesResponse, error) {
	if s.Learnt == nil {
		return nil, status.Error(codes.Unavailable, "nothing is learnt of names here")
	}
	wanted := func(string) bool { return true }
	if r.Pattern != "" {
		pattern, err := policy.CompileDNSPattern(r.Pattern)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		wanted = pattern.Match
	}
	if r.Endpoint != "" {
		if _, err := s.Engine.GetEndpoint(r.Endpoint); err != nil {
			return nil, grpcError(err)
		}
	}
	learnt, err := s.Learnt(ctx, maxNames)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "ask the proxy: %v", err)
	}
	out := &agentv1.ListNamesResponse{}
	if learnt.All > uint64(len(learnt.Names)) {
		out.LeftOff = learnt.All - uint64(len(learnt.Names))
	}
	now := time.Now().Unix()
	for _, n := range learnt.Names {
		if !wanted(n.Name) || r.Endpoint != "" && r.Endpoint != n.Endpoint {
			continue
		}
		addr, _ := netip.AddrFromSlice(n.Address)
		out.Names = append(out.Names, &agentv1.LearntName{
			Name: n.Name, Address: addr.String(), Endpoint: n.Endpoint, Expires: n.Expires, Kept: n.Expires <= now, Identity: n.Identity, Selectors: n.Selectors,
		})
	}
	for _, x := range learnt.Selectors {
		out.Selectors = append(out.Selectors, &agentv1.NameSelector{Selector: x.Selector, Names: x.Names, Addresses: x.Addresses})
	}
	return out, nil
}

func (s *Server) listNameMap(of string) (*agentv1.ListMapResponse, error) {
	eps, err := s.Maps.Endpoints()
	if err != nil {
		return nil, err
	}
	names := map[uint16]string{}
	for _, e := range eps {
		if info, ok := s.Engine.Endpoint(e.Addr); ok {
			names[e.ID] = info.Namespace + "/" + info.Name
		}
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Endpoint", "Address", "Identity"}}
	err = s.Maps.Names().All(func(k policy.NameKey, id policy.Identity) bool {
		name, ok := names[k.Endpoint]
		if !ok {
			name = fmt.Sprint(k.Endpoint)
		}
		if of == "" || of == name {
			out.Rows = append(out.Rows, row(name, k.Addr, id))
		}
		return len(out.Rows) < maxRows
	})
	sortRows(out.Rows)
	return out, err
}

func (s *Server) listNameRules(of string) (*agentv1.ListMapResponse, error) {
	subjects, err := s.subjects(of)
	if err != nil {
		return nil, err
	}
	tables, err := s.Maps.NameTables()
	if err != nil {
		return nil, err
	}
	users := map[uint32][]string{}
	for subject, table := range tables {
		users[table] = append(users[table], subjects[subject]...)
	}
	rules, err := s.Maps.Names().Rules()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Table", "Endpoints", "Identity", "Protocol", "Port", "Verdict", "L7 set", "Rule"}}
	for k, table := range rules {
		if of != "" && users[k.Table] == nil {
			continue
		}
		for key, e := range table {
			if len(out.Rows) < maxRows {
				out.Rows = append(out.Rows, row(k.Table, strings.Join(users[k.Table], ","), k.Identity, protoName(key.Proto), portName(key), e.Verdict, setName(e.Set), s.Engine.Reference(e.Rule)))
			}
		}
	}
	sortRows(out.Rows)
	return out, nil
}
