package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// How many redirects and drop counters the table shows.
const (
	redirectsShown = 5
	dropsShown     = 5
)

// statusView is the status as JSON and YAML show it.
type statusView struct {
	OK             bool              `json:"ok"`
	Version        string            `json:"version"`
	NodeName       string            `json:"nodeName"`
	Started        string            `json:"started"`
	Parts          []partView        `json:"parts"`
	PolicyRevision uint64            `json:"policyRevision"`
	PolicyEnforced uint64            `json:"policyEnforced"`
	Policies       uint32            `json:"policies"`
	Endpoints      map[string]uint32 `json:"endpoints"`
	Identities     uint32            `json:"identities"`
	FlowsPerSecond float64           `json:"flowsPerSecond"`
	Redirects      []redirectView    `json:"redirects"`
	Controllers    []controllerView  `json:"controllers"`
	Drops          []dropView        `json:"drops"`
	Backend        backendView       `json:"backend"`
	EventsLost     uint64            `json:"eventsLost"`
	Maps           []mapView         `json:"maps"`
}

type mapView struct {
	Map     string  `json:"map"`
	Entries uint64  `json:"entries"`
	Limit   uint64  `json:"limit"`
	Percent float64 `json:"percent"`
	Evicts  bool    `json:"evicts"`
}

type partView struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

type redirectView struct {
	Protocol  string `json:"protocol"`
	Port      uint32 `json:"port"`
	ProxyPort uint32 `json:"proxyPort"`
	Endpoint  string `json:"endpoint"`
	Direction string `json:"direction"`
}

type controllerView struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Error    string `json:"error"`
	Runs     uint64 `json:"runs"`
	Failures uint64 `json:"failures"`
}

type dropView struct {
	Reason    string `json:"reason"`
	Direction string `json:"direction"`
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
}

type backendView struct {
	Name        string `json:"name"`
	State       string `json:"state"`
	Detail      string `json:"detail"`
	Version     string `json:"version"`
	PID         int32  `json:"pid"`
	Revision    uint64 `json:"revision"`
	Connections uint64 `json:"connections"`
}

func viewStatus(s *agentv1.StatusResponse) statusView {
	v := statusView{
		OK: s.GetOk(), Version: s.GetVersion(), NodeName: s.GetNodeName(),
		Started:        time.Unix(0, s.GetStartedNs()).UTC().Format(time.RFC3339),
		PolicyRevision: s.GetPolicyRevision(), PolicyEnforced: s.GetPolicyEnforced(), Policies: s.GetPolicies(),
		Endpoints: notNilMap(s.GetEndpoints()), Identities: s.GetIdentities(),
		FlowsPerSecond: s.GetFlowsPerSecond(), EventsLost: s.GetEventsLost(),
		Parts: []partView{}, Redirects: []redirectView{}, Controllers: []controllerView{}, Drops: []dropView{}, Maps: []mapView{},
	}
	for _, p := range s.GetParts() {
		v.Parts = append(v.Parts, partView{p.GetName(), p.GetOk(), p.GetDetail()})
	}
	for _, r := range s.GetRedirects() {
		v.Redirects = append(v.Redirects, redirectView{r.GetProtocol(), r.GetPort(), r.GetProxyPort(), r.GetEndpoint(), r.GetDirection()})
	}
	for _, k := range s.GetControllers() {
		v.Controllers = append(v.Controllers, controllerView{k.GetName(), k.GetOk(), k.GetError(), k.GetRuns(), k.GetFailures()})
	}
	for _, d := range s.GetDrops() {
		v.Drops = append(v.Drops, dropView{d.GetReason(), d.GetDirection(), d.GetPackets(), d.GetBytes()})
	}
	for _, m := range s.GetMaps() {
		v.Maps = append(v.Maps, mapView{m.GetMap(), m.GetEntries(), m.GetLimit(), 100 * float64(m.GetEntries()) / float64(max(m.GetLimit(), 1)), m.GetEvicts()})
	}
	b := s.GetBackend()
	v.Backend = backendView{b.GetName(), b.GetState(), b.GetDetail(), b.GetVersion(), b.GetPid(), b.GetRevision(), b.GetConnections()}
	return v
}

func showStatus(c *cobra.Command, s *agentv1.StatusResponse) error {
	return show(c, viewStatus(s), func(w io.Writer) error { return statusTable(w, s, time.Now()) })
}

// statusTable shows the parts that the agent names, then what it counts. A part
// that is also counted has one line.
func statusTable(w io.Writer, s *agentv1.StatusResponse, now time.Time) error {
	l := newLines()
	l.line("Node", fmt.Sprintf("%s, headgate %s, up %s", s.GetNodeName(), s.GetVersion(),
		now.Sub(time.Unix(0, s.GetStartedNs())).Round(time.Second)))
	sick := map[string]string{} // parts that are not well, and why
	for _, p := range s.GetParts() {
		name := strings.ToLower(p.GetName())
		if !p.GetOk() {
			sick[name] = okWord(false, p.GetDetail()) + ", "
		}
		switch {
		case slices.Contains([]string{"policy", "endpoints", "controllers", "drops"}, name):
		case name == "proxy" && s.GetBackend() != nil:
			l.line("Proxy", okWord(p.GetOk(), backendLine(s.GetBackend())))
		case name != "":
			l.line(strings.ToUpper(name[:1])+name[1:], okWord(p.GetOk(), p.GetDetail()))
		}
	}
	l.line("Policies", sick["policy"]+fmt.Sprintf("%d, revision %d (enforced %d)", s.GetPolicies(), s.GetPolicyRevision(), s.GetPolicyEnforced()))
	l.line("Endpoints", sick["endpoints"]+endpointsLine(s))
	l.line("Identities", fmt.Sprint(s.GetIdentities()))
	l.line("Flows/s", fmt.Sprintf("%.1f%s", s.GetFlowsPerSecond(), lost(s.GetEventsLost())))
	redirectLines(l, s.GetRedirects())
	controllerLines(l, sick["controllers"], s.GetControllers())
	dropLines(l, sick["drops"], s.GetDrops())
	return l.write(w)
}

func okWord(ok bool, detail string) string {
	if !ok {
		return join("NOT OK", detail)
	}
	return join("OK", detail)
}

// join puts commas between what is not empty.
func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

func backendLine(b *agentv1.Backend) string {
	if b == nil {
		return ""
	}
	parts := []string{strings.TrimSpace(b.GetName() + " " + b.GetVersion()), b.GetState(), b.GetDetail()}
	if b.GetPid() > 0 {
		parts = append(parts, fmt.Sprintf("pid %d", b.GetPid()))
	}
	return join(append(parts, fmt.Sprintf("revision %d", b.GetRevision()), fmt.Sprintf("%d connections", b.GetConnections()))...)
}

func readyEndpoints(s *agentv1.StatusResponse) (ready, all uint32) {
	for state, n := range s.GetEndpoints() {
		all += n
		if state == "ready" {
			ready += n
		}
	}
	return ready, all
}

func endpointsLine(s *agentv1.StatusResponse) string {
	ready, all := readyEndpoints(s)
	var others []string
	for state, n := range s.GetEndpoints() {
		if state != "ready" && n > 0 {
			others = append(others, fmt.Sprintf("%d %s", n, state))
		}
	}
	slices.Sort(others)
	return join(append([]string{fmt.Sprintf("%d/%d ready", ready, all)}, others...)...)
}

func lost(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d events lost", n)
}

func redirectLines(l *lines, redirects []*agentv1.Redirect) {
	if len(redirects) == 0 {
		l.line("Redirects", "none")
		return
	}
	name := "Redirects"
	for i, r := range redirects {
		if i == redirectsShown {
			l.line("", fmt.Sprintf("and %d more ('headgate bpf route list')", len(redirects)-i))
			break
		}
		to := ""
		if r.GetProxyPort() != 0 {
			to = fmt.Sprintf("proxy port %d", r.GetProxyPort())
		}
		l.line(name, join(fmt.Sprintf("%s %s %s port %d", r.GetEndpoint(), r.GetDirection(), r.GetProtocol(), r.GetPort()), to))
		name = ""
	}
}

func controllerLines(l *lines, sick string, controllers []*agentv1.Controller) {
	healthy := 0
	for _, k := range controllers {
		if k.GetOk() {
			healthy++
		}
	}
	l.line("Controllers", sick+fmt.Sprintf("%d/%d healthy", healthy, len(controllers)))
	for _, k := range controllers {
		if !k.GetOk() {
			l.line("", fmt.Sprintf("%s failed %d of %d times: %s", k.GetName(), k.GetFailures(), k.GetRuns(), k.GetError()))
		}
	}
}

// dropLines shows the reasons with most packets.
func dropLines(l *lines, sick string, drops []*agentv1.Drop) {
	if len(drops) == 0 {
		l.line("Drops", sick+"none")
		return
	}
	most := slices.SortedFunc(slices.Values(drops), func(a, b *agentv1.Drop) int {
		return cmp.Compare(b.GetPackets(), a.GetPackets())
	})
	name := "Drops"
	for i, d := range most {
		if i == dropsShown {
			l.line("", fmt.Sprintf("and %d more reasons ('headgate bpf drops list')", len(most)-i))
			break
		}
		l.line(name, sick+fmt.Sprintf("%s, %s: %d packets, %d bytes", d.GetReason(), d.GetDirection(), d.GetPackets(), d.GetBytes()))
		name, sick = "", ""
	}
}
