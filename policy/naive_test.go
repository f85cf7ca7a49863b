package policy_test

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/policy/policytest"
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
		e := policytest.NewEngine(policies, parties)
		for range 200 {
			c := random.Connection(parties)
			asked++
			want := naive.Allowed(documents, &c)
			got, why := e.Allowed(t, &c)
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
