package serve

import (
	"context"
	"time"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// GetConfig implements agentv1.AgentServer.
func (s *Server) GetConfig(context.Context, *agentv1.GetConfigRequest) (*agentv1.ConfigResponse, error) {
	out := &agentv1.ConfigResponse{}
	for _, x := range s.Engine.Config() {
		v := &agentv1.Setting{Name: x.Name, Value: x.Value, Flag: x.Flag, Values: x.Values, Fallback: x.Back}
		if x.Back != "" {
			v.UntilNs = x.Until.UnixNano()
		}
		out.Settings = append(out.Settings, v)
	}
	return out, nil
}

// SetConfig implements agentv1.AgentServer.
func (s *Server) SetConfig(ctx context.Context, r *agentv1.SetConfigRequest) (*agentv1.ConfigResponse, error) {
	if err := s.Engine.SetConfig(ctx, r.Name, r.Value, time.Duration(r.ForNs)); err != nil {
		return nil, grpcError(err)
	}
	return s.GetConfig(ctx, nil)
}

// ConfirmConfig implements agentv1.AgentServer.
func (s *Server) ConfirmConfig(context.Context, *agentv1.ConfirmConfigRequest) (*agentv1.ConfirmConfigResponse, error) {
	confirmed, err := s.Engine.ConfirmConfig()
	if err != nil {
		return nil, grpcError(err)
	}
	return &agentv1.ConfirmConfigResponse{Confirmed: confirmed}, nil
}
