package oracle

import (
	"bytes"
	"flag"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/cilium/pkg/fqdn/re"
	"github.com/cilium/cilium/pkg/option"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/api"
	"github.com/sirupsen/logrus"

	headgate "github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/policy/policytest"
	"github.com/headgate/headgate/policy/policytest/naive"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed; 0: a new one each time")
	pairsFlag = flag.Int("pairs", 100_000, "connections that both are asked about")
	showFlag  = flag.Int("show", 1, "differences to show before giving up")
)

// TestAgainstCilium asks both engines about random connections under random
// policies. What they differ in must be in the table of known differences.
func TestAgainstCilium(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: go test -seed %d -pairs %d", seed, *pairsFlag)
	logrus.SetOutput(io.Discard)
	option.Config.EnableIPv4, option.Config.EnableIPv6 = true, true
	option.Config.EnableL7Proxy, option.Config.EnableICMPRules = true, true
	policy.SetPolicyEnabled(option.DefaultEnforcement)
	api.InitEntities("default")
	if err := re.InitRegexCompileLRU(1024); err != nil {
		t.Fatal(err)
	}

	random := &naive.Random{Rand: rand.New(rand.NewPCG(seed, 2))}
	parties := naive.Parties()
	asked, shown, allowed, known, refused := 0, 0, 0, map[string]int{}, map[string]int{}
	for asked < *pairsFlag {
		documents := random.Documents()
		if namesEgressPorts(documents) {
			continue
		}
		policies, text, err := read(documents)
		if err != nil {
			refused["by headgate"]++
			continue
		}
		e := policytest.NewEngine(policies, parties)
		c, err := newCilium(documents, e)
		if err != nil {
			if refused["by Cilium"]++; refused["by Cilium"] <= *showFlag {
				t.Logf("refused by Cilium alone: %v\n%s", err, text)
			}
			continue
		}
		for range 200 {
			q := random.Connection(parties)
			if q.Port == 0 {
				q.Port = 1 // there is no asking about port 0
			}
			asked++
			entry, _ := e.Lookup(&q)
			want, err := c.verdict(&q, e)
			if err != nil {
				refused["by Cilium, to resolve"]++
				break
			}
			if want != headgate.Deny {
				allowed++
			}
			if entry.Verdict == want {
				continue
			}
			if why := explain(documents, &q, entry.Verdict, want); why != "" {
				known[why]++
				continue
			}
			small := shrink(documents, func(smaller []*naive.Document) bool {
				ours, theirs, _, err := both(smaller, parties, &q)
				return err == nil && ours != theirs && explain(smaller, &q, ours, theirs) == ""
			})
			ours, theirs, text, _ := both(small, parties, &q)
			t.Errorf("%s egress=%t %s %s %d: %s, Cilium: %s\n%s", q.Subject.Name, q.Egress, q.Peer.Name, q.Protocol, q.Port, ours, theirs, text)
			if shown++; shown >= *showFlag {
				t.FailNow()
			}
			break
		}
	}
	t.Logf("%d connections, %d of them allowed; known differences: %v; policies refused: %v", asked, allowed, known, refused)
}

// both asks both engines from the beginning.
func both(documents []*naive.Document, parties []naive.Party, q *naive.Connection) (ours, theirs headgate.Verdict, text []byte, err error) {
	policies, text, err := read(documents)
	if err != nil {
		return 0, 0, text, err
	}
	e := policytest.NewEngine(policies, parties)
	c, err := newCilium(documents, e)
	if err != nil {
		return 0, 0, text, err
	}
	entry, _ := e.Lookup(q)
	theirs, err = c.verdict(q, e)
	return entry.Verdict, theirs, text, err
}

func read(documents []*naive.Document) (policies []headgate.Policy, text []byte, err error) {
	var files [][]byte
	for _, d := range documents {
		files = append(files, d.JSON())
	}
	text = bytes.Join(files, []byte("\n---\n"))
	policies, err = decode.Decode("random", text)
	return policies, text, err
}

// namesEgressPorts reports whether there is a named port whose meaning is the
// peers' to say: the other engine gets it from the whole cluster.
func namesEgressPorts(documents []*naive.Document) bool {
	named := func(p naive.Port) bool { return strings.Trim(p.Port, "0123456789") != "" }
	for _, d := range documents {
		var ports []naive.Port
		if d.Kube != nil {
			for _, r := range d.Kube.Egress {
				ports = append(ports, r.Ports...)
			}
		} else {
			for _, r := range slices.Concat(d.Cilium.Egress, d.Cilium.EgressDeny) {
				for _, p := range r.Ports {
					ports = append(ports, p.Ports...)
				}
			}
		}
		if slices.ContainsFunc(ports, named) {
			return true
		}
	}
	return false
}
