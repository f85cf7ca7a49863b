package policy_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/policy/policytest/naive"
)

var pairsFlag = flag.Int("pairs", 150_000, "connections that the naive evaluator is asked about")

// TestAgainstNaive writes random policies, reads them, and asks both Resolve and
// the naive evaluator about random connections and requests.
func TestAgainstNaive(t *testing.T) {
	seed := flag.Lookup("seed").Value.(flag.Getter).Get().(uint64)
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: go test ./policy -run TestAgainstNaive -seed %d -pairs %d", seed, *pairsFlag)
	random := &naive.Random{Rand: rand.New(rand.NewPCG(seed, 1)), Extensions: true}
	parties := naive.Parties()
	asked, refused, allowed := 0, 0, 0
	for asked < *pairsFlag {
		documents := random.Documents()
		policies, text, err := decodeAll(documents)
		if err != nil {
			if refused++; refused > 100+asked/100 {
				t.Fatalf("too many are refused: %v\n%s", err, text)
			}
			continue
		}
		e := newEngine(policies, parties)
		for range 200 {
			c := random.Connection(parties)
			asked++
			want := naive.Allowed(documents, &c)
			got, why := e.allowed(t, &c)
			if want {
				allowed++
			}
			if got != want {
				t.Fatalf("%s egress=%t %s %s %d %+v: allowed %t (%s), want %t\n%s", c.Subject.Name, c.Egress, c.Peer.Name, c.Protocol, c.Port, c.Request, got, why, want, text)
			}
		}
	}
	t.Logf("%d connections, %d of them allowed; %d groups of policies refused", asked, allowed, refused)
}

func decodeAll(documents []*naive.Document) (policies []policy.Policy, text []byte, err error) {
	var files [][]byte
	for _, d := range documents {
		files = append(files, d.JSON())
	}
	text = bytes.Join(files, []byte("\n---\n"))
	policies, err = decode.Decode("random", text)
	return policies, text, err
}

// engine is Resolve and what it needs.
type engine struct {
	rules  []policy.Rule
	ids    *policy.Identities
	number map[string]policy.Identity // of parties by name
	tables map[string]policy.Resolved
	judges map[policy.SetID]policy.Judge
}

func newEngine(policies []policy.Policy, parties []naive.Party) *engine {
	e := &engine{ids: policy.NewIdentities(), number: map[string]policy.Identity{}, tables: map[string]policy.Resolved{}, judges: map[policy.SetID]policy.Judge{}}
	for _, p := range policies {
		e.rules = append(e.rules, p.Rules...)
	}
	for i := range parties {
		info := identityOf(&parties[i], i)
		e.number[parties[i].Name] = info.ID
		if info.ID >= policy.IdentityMinWorkload {
			if err := e.ids.Add(info); err != nil {
				panic(err)
			}
		}
	}
	return e
}

func identityOf(p *naive.Party, i int) policy.IdentityInfo {
	for id := policy.IdentityHost; id <= policy.IdentityWorldIPv6; id++ {
		if labels, _ := policy.ReservedLabels(id); p.Reserved != "" && labels.Has(policy.SourceReserved, p.Reserved) &&
			(p.Reserved != "remote-node" || id == policy.IdentityRemoteNode) {
			return policy.IdentityInfo{ID: id}
		}
	}
	switch {
	case p.Prefix != "":
		return policy.IdentityInfo{ID: policy.IdentityMinLocal + policy.Identity(i), Prefix: netip.MustParsePrefix(p.Prefix)}
	case p.Address != "" && netip.MustParseAddr(p.Address).Is4():
		return policy.IdentityInfo{ID: policy.IdentityWorldIPv4}
	case p.Address != "":
		return policy.IdentityInfo{ID: policy.IdentityWorldIPv6}
	}
	labels, err := policy.EndpointLabels(p.Namespace, "", "", naive.NamespaceLabels()[p.Namespace], p.Labels)
	if err != nil {
		panic(err)
	}
	return policy.IdentityInfo{ID: policy.IdentityMinWorkload + policy.Identity(i), Labels: labels, NamedPorts: portsOf(p)}
}

func portsOf(p *naive.Party) policy.NamedPorts {
	ports := policy.NamedPorts{}
	for name, port := range p.Ports {
		n := policy.NamedPort{Proto: protocols[port.Protocol]}
		if _, err := fmt.Sscan(port.Port, &n.Port); err != nil {
			panic(err)
		}
		ports[name] = []policy.NamedPort{n}
	}
	return ports
}

var protocols = map[string]policy.Proto{
	"TCP": policy.ProtoTCP, "UDP": policy.ProtoUDP, "SCTP": policy.ProtoSCTP, "ICMP": policy.ProtoICMP, "ICMPv6": policy.ProtoICMPv6, "GRE": 47,
}

// allowed answers for a connection, and says why.
func (e *engine) allowed(t *testing.T, c *naive.Connection) (bool, string) {
	t.Helper()
	resolved, ok := e.tables[c.Subject.Name]
	if !ok {
		info, _ := e.ids.Get(e.number[c.Subject.Name])
		resolved.Table, resolved.Sets = policy.Resolve(policy.Subject{Labels: info.Labels, NamedPorts: info.NamedPorts}, e.rules, e.ids)
		e.tables[c.Subject.Name] = resolved
	}
	dir := policy.Ingress
	if c.Egress {
		dir = policy.Egress
	}
	entry := resolved.Table.Lookup(e.number[c.Peer.Name], dir, protocols[c.Protocol], uint16(c.Port))
	why := entry.Verdict.String()
	if entry.Rule > 0 {
		why += " " + resolved.Table.Rules[entry.Rule-1].String()
	}
	if entry.Verdict != policy.Redirect {
		return entry.Verdict == policy.Allow, why
	}
	set := resolved.Sets[entry.Set]
	judge := e.judges[entry.Set]
	if judge == nil {
		var err error
		if judge, err = policy.CompileSet(set); err != nil {
			t.Fatal(err)
		}
		e.judges[entry.Set] = judge
	}
	var request policy.Request = &policy.DNSRequest{Name: c.Request.Name, Type: 1}
	if set.Protocol == policy.ProtocolHTTP {
		http := &policy.HTTPRequest{Method: []byte(c.Request.Method), Path: []byte(c.Request.Path), Host: []byte(c.Request.Host)}
		if c.Request.Token != "" {
			http.Headers = []policy.HTTPHeader{{Name: []byte("x-token"), Value: []byte(c.Request.Token)}}
		}
		request = http
	}
	d := judge.Decide(request)
	return d.Verdict == policy.Allow, fmt.Sprintf("%s, request: %s %s %s", why, d.Verdict, d.Rule, d.Reason)
}
