package nameserver

import (
	"cmp"
	"context"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// askFor is how long one upstream has to answer.
	askFor = 2 * time.Second
	// lookEvery is how often the file of upstreams is looked at.
	lookEvery = 5 * time.Second
)

// forwarder asks others. The zero value works.
type forwarder struct {
	within time.Duration // instead of askFor; 0: that

	once sync.Once
	busy chan struct{} // holds a value for each question under way

	mu     sync.Mutex
	looked time.Time
	file   string
	from   []netip.AddrPort // what the file said
}

// ask puts a question to the upstreams, one after the other.
func (f *forwarder) ask(z *zone, q *dns.Msg, network string) *dns.Msg {
	f.once.Do(func() { f.busy = make(chan struct{}, inFlight) })
	upstreams := f.upstreams(z)
	if len(upstreams) == 0 {
		return refusal(q, dns.RcodeRefused)
	}
	select {
	case f.busy <- struct{}{}:
		defer func() { <-f.busy }()
	default: // too many are waiting
		return refusal(q, dns.RcodeServerFailure)
	}
	onward := q.Copy()
	onward.Id = dns.Id() // ours, that nobody who asks can choose
	within := cmp.Or(f.within, askFor)
	client := dns.Client{Net: network, Timeout: within, UDPSize: dns.MaxMsgSize}
	for _, at := range upstreams {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		a, _, err := client.ExchangeContext(ctx, onward, at.String())
		cancel()
		if err != nil || len(a.Question) != 1 || a.Question[0] != q.Question[0] {
			continue
		}
		a.Id = q.Id
		return a
	}
	return refusal(q, dns.RcodeServerFailure)
}

// upstreams are those that were named, or those of the file; never ourselves.
func (f *forwarder) upstreams(z *zone) []netip.AddrPort {
	list := z.Upstreams
	if len(list) == 0 && z.ResolvConf != "" {
		list = f.read(z.ResolvConf)
	}
	return slices.DeleteFunc(slices.Clone(list), func(at netip.AddrPort) bool { return slices.Contains(z.Listen, at.Addr()) })
}

func (f *forwarder) read(file string) []netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == file && time.Since(f.looked) < lookEvery {
		return f.from
	}
	text, err := os.Open(file)
	if err != nil {
		return f.from // what it said last, while it is being written
	}
	defer text.Close()
	config, err := dns.ClientConfigFromReader(text)
	if err != nil {
		return f.from
	}
	f.file, f.looked, f.from = file, time.Now(), nil
	for _, s := range config.Servers {
		if ip, err := netip.ParseAddr(s); err == nil {
			f.from = append(f.from, netip.AddrPortFrom(ip, 53))
		}
	}
	return f.from
}
