package kafka

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// BenchmarkExchange is a request and its answer, of the kinds that traffic is made of.
func BenchmarkExchange(b *testing.B) {
	produce, fetch := produceOf(13, strings.Repeat("r", 16<<10), "a"), fetchOf(18, 0, -1, "a")
	for name, x := range map[string][2][]byte{
		"produce": {requestFrame(1, produce), responseFrame(1, produced(produce, "a"))},
		"fetch":   {requestFrame(1, fetch), responseFrame(1, fetched(18, 0, "a"))},
	} {
		b.Run(name, func(b *testing.B) {
			topics := new(Directory).Of(1)
			for name, id := range ids {
				topics.Learn(id, name)
			}
			s := New(quiet{}, topics)
			b.ReportAllocs()
			b.SetBytes(int64(len(x[0]) + len(x[1])))
			for b.Loop() {
				for side, data := range x {
					if _, err := s.Feed(parsers.Side(side), data, false); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// quiet allows everything and remembers nothing.
type quiet struct{}

func (quiet) Request(uint64, policy.Request) policy.Decision {
	return policy.Decision{Verdict: policy.Allow}
}
func (quiet) Allows(policy.Request) bool                 { return true }
func (quiet) Deny(uint64, policy.Request, string) bool   { return false }
func (quiet) Response(uint64, parsers.Answer)            {}
func (quiet) Unanswered(uint64)                          {}
func (quiet) Malformed(uint64, parsers.Side, error) bool { return false }
