package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/agent/endpoint"
	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/observe"
)

// report is how the node is, for people.
func (a *Agent) report() *agentv1.StatusResponse {
	r := &agentv1.StatusResponse{
		Version: a.cfg.Version, NodeName: a.cfg.NodeName, Endpoints: map[string]uint32{},
		FlowsPerSecond: a.seeing.ring.Rate(10 * time.Second), Controllers: a.control.list(),
		EventsLost: a.seeing.lost.Load() + a.seeing.lostProxy.Load(), StartedNs: a.started.UnixNano(),
	}
	r.PolicyRevision, r.PolicyEnforced = a.engine.Revisions()
	policies, _ := a.engine.Policies()
	r.Policies = uint32(len(policies))
	r.Identities = uint32(len(a.engine.IdentityList()))
	for _, e := range a.engine.Endpoints() {
		r.Endpoints[string(e.State)]++
	}
	b := a.backend.Status()
	r.Backend = &agentv1.Backend{
		Name: b.Name, State: b.State, Detail: b.Detail, Version: b.Version, Pid: int32(b.PID), Revision: b.Revision, Connections: b.Connections,
	}
	a.reportRedirects(r)
	a.reportParts(r)
	r.Ok = true
	for _, p := range r.Parts {
		r.Ok = r.Ok && p.Ok
	}
	return r
}

func (a *Agent) reportRedirects(r *agentv1.StatusResponse) {
	all := a.engine.Redirects()
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, x := range all[name] {
			r.Redirects = append(r.Redirects, &agentv1.Redirect{
				Protocol: x.Protocol.String(), Port: uint32(x.Port), ProxyPort: a.port.Load(), Endpoint: name, Direction: x.Direction.String(),
			})
		}
	}
}

// reportParts judges each part. What is not well makes the whole not well.
func (a *Agent) reportParts(r *agentv1.StatusResponse) {
	add := func(name string, ok bool, format string, args ...any) {
		r.Parts = append(r.Parts, &agentv1.Part{Name: name, Ok: ok, Detail: fmt.Sprintf(format, args...)})
	}
	add("store", true, "%s", a.store.path)
	revision, err := a.gate.Revision()
	add("datapath", err == nil, "attached, policy revision %d", revision)
	r.Parts = append(r.Parts, a.reportMaps(r))
	add("proxy", r.Backend.State == "ready", "%s", strings.TrimSpace(r.Backend.State+" "+r.Backend.Detail))
	add("policy", r.PolicyEnforced >= r.PolicyRevision, "%d policies, revision %d, in force %d", r.Policies, r.PolicyRevision, r.PolicyEnforced)
	add("services", true, "%s", a.serviceWords())
	if a.cfg.Names != nil {
		names := a.backend.Status().Names
		add("names", names == "served", "%s", cmp.Or(names, "not served yet"))
	}
	if words := a.reportNames(); words != "" {
		add("fqdn", a.backend.learner().LearntStats().GetStuck() == 0, "%s", words)
	}
	notReady := uint32(0)
	for state, n := range r.Endpoints {
		if state != string(endpoint.Ready) {
			notReady += n
		}
	}
	add("endpoints", notReady == 0, "%d ready, %d not", r.Endpoints[string(endpoint.Ready)], notReady)
	failing := 0
	for _, c := range r.Controllers {
		if !c.Ok {
			failing++
		}
	}
	add("controllers", failing == 0, "%d/%d healthy", len(r.Controllers)-failing, len(r.Controllers))
	drops, err := a.gate.Drops()
	if err != nil {
		add("drops", false, "%v", err)
	}
	for _, d := range drops {
		if d.Reason == 0 {
			continue
		}
		r.Drops = append(r.Drops, &agentv1.Drop{
			Reason: observe.DropReason(d.Reason).String(), Direction: d.Direction.String(), Packets: d.Packets, Bytes: d.Bytes,
		})
	}
}
