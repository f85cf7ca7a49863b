package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/headgate/headgate/proxy"
)

// proxyLimits bound what clients can make the proxy spend. They are settings of the
// agent, which starts the proxy with the same flags.
type proxyLimits struct {
	head, idle               time.Duration
	connections, perEndpoint int

	deadline                       time.Duration
	denial                         string
	questions, questionsOfEndpoint int
	shortcut                       bool
}

func (l *proxyLimits) addTo(fs *pflag.FlagSet) {
	fs.DurationVar(&l.head, "proxy-head-timeout", 30*time.Second, "how long the head of a request may take to arrive")
	fs.DurationVar(&l.idle, "proxy-idle-timeout", time.Hour, "when the proxy closes a connection on which nothing happens")
	fs.IntVar(&l.connections, "proxy-connections", 50_000, "how many connections the proxy carries at once")
	fs.IntVar(&l.perEndpoint, "proxy-connections-per-endpoint", 16_384, "how many of them from one address")
	fs.DurationVar(&l.deadline, "dns-deadline", 2*time.Second, "how long an answer of the DNS may wait until its addresses are in force; then it is SERVFAIL")
	fs.StringVar(&l.denial, "dns-denial", "refused", "what a question gets that is not allowed: refused or nxdomain")
	fs.BoolVar(&l.shortcut, "dns-shortcut", true, "let questions that were allowed before, and answers that were told before and are in force, go on without the proxy")
	fs.IntVar(&l.questions, "dns-questions", 65_536, "how many questions by UDP may wait for an answer at once")
	fs.IntVar(&l.questionsOfEndpoint, "dns-questions-per-endpoint", 8_192, "how many of them from one address")
}

func (l *proxyLimits) check() error {
	if l.head < time.Second || l.idle < time.Second || l.connections < 1 || l.perEndpoint < 1 {
		return usagef("proxy limits %s: write at least 1s, and at least 1 connection", l)
	}
	if l.deadline < time.Millisecond || l.questions < 1 || l.questionsOfEndpoint < 1 {
		return usagef("limits of the DNS: write --dns-deadline of at least 1ms, and at least 1 question")
	}
	if l.denial != "refused" && l.denial != "nxdomain" {
		return usagef("--dns-denial %q: write refused or nxdomain", l.denial)
	}
	return nil
}

// arguments make another process have the same limits.
func (l *proxyLimits) arguments() []string {
	return []string{
		"--proxy-head-timeout", l.head.String(), "--proxy-idle-timeout", l.idle.String(),
		"--proxy-connections", fmt.Sprint(l.connections), "--proxy-connections-per-endpoint", fmt.Sprint(l.perEndpoint),
		"--dns-deadline", l.deadline.String(), "--dns-denial", l.denial,
		"--dns-questions", fmt.Sprint(l.questions), "--dns-questions-per-endpoint", fmt.Sprint(l.questionsOfEndpoint),
		"--dns-shortcut=" + strconv.FormatBool(l.shortcut),
	}
}

func (l *proxyLimits) limits() proxy.Limits {
	return proxy.Limits{Head: l.head, Idle: l.idle, Connections: l.connections, PerSource: l.perEndpoint}
}

func (l *proxyLimits) dns() proxy.DNSLimits {
	return proxy.DNSLimits{
		Deadline: l.deadline, Questions: l.questions, PerEndpoint: l.questionsOfEndpoint, NXDomain: l.denial == "nxdomain",
	}
}

// String is part of what an agent compares before it adopts a proxy.
func (l *proxyLimits) String() string {
	return fmt.Sprintf("head %s idle %s connections %d/%d dns %s %s %d/%d shortcut %t", l.head, l.idle, l.connections, l.perEndpoint,
		l.deadline, l.denial, l.questions, l.questionsOfEndpoint, l.shortcut)
}
