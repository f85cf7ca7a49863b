package proxy

import (
	"cmp"
	"time"
)

// DNSLimits bound what questions can make the process spend, and how long it waits. Zero
// fields take the defaults.
type DNSLimits struct {
	// Deadline is how long an answer is held until its addresses are in force; then its
	// client gets SERVFAIL. 2 s.
	Deadline time.Duration
	// Answer is how long a question by UDP is remembered: longer than resolvers' patience.
	// 10 s.
	Answer time.Duration
	// Questions that wait at once, 65,536, and of one endpoint, 8,192.
	Questions, PerEndpoint int
	// NXDomain makes what is denied look as if it did not exist, instead of refused.
	NXDomain bool
}

func (l DNSLimits) withDefaults() DNSLimits {
	return DNSLimits{
		Deadline:    cmp.Or(l.Deadline, 2*time.Second),
		Answer:      cmp.Or(l.Answer, 10*time.Second),
		Questions:   cmp.Or(l.Questions, 65_536),
		PerEndpoint: cmp.Or(l.PerEndpoint, 8_192),
		NXDomain:    l.NXDomain,
	}
}
