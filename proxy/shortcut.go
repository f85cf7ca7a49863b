package proxy

import (
	"context"
	"hash/maphash"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/parsers/dns"
	"github.com/headgate/headgate/policy"
)

// Shortcut is how the datapath lets questions go on without the proxy: those that it was told
// are allowed, by their name and type and the sets that judge them. And their answers, if they
// say to the letter what the same endpoint was told before and all of it stands as it did then.
// Every other answer comes here, where its question is taken out. Both are recorded here, later.
// It is used from several goroutines.
type Shortcut interface {
	// SetKnownRound and SetToldRound say which round's Know and Tell hold from now on; 0: none.
	SetKnownRound(round uint64) error
	SetToldRound(round uint64) error
	// KnownRound is the one that holds, whoever has set it.
	KnownRound() (uint64, error)
	// Longest is that of the names on the wire that can be known.
	Longest() int
	// Know says that a question is allowed by two sets, in one round. The name is as on the
	// wire, in small letters.
	Know(round uint64, egress, ingress uint32, name []byte, typ uint16) error
	// Tell says what an endpoint was told of a name: all the addresses, as what the datapath
	// has each, and until when, by CLOCK_MONOTONIC, they are sure to stay. Whoever is told them
	// may use them for floor at least.
	Tell(round uint64, endpoint uint16, name []byte, typ uint16, addrs []netip.Addr, as []policy.Identity, until, floor time.Duration) error
	// Take takes out a question that went on, and appends its message to b; at is by
	// CLOCK_MONOTONIC. False: there is none.
	Take(client, server netip.AddrPort, id uint16, b []byte) (message []byte, at time.Duration, ok bool)
	// Before calls f for each question that went on before a time and was not taken yet.
	Before(at time.Duration, f func(client, server netip.AddrPort, id uint16)) error
	// Read calls f for each question whose answer went on too, until the context ends.
	Read(ctx context.Context, least, most time.Duration,
		f func(client, server netip.AddrPort, asked, answered time.Duration, query, answer []byte)) error
	// TakeLost is how many of these found no room, since a process has asked last.
	TakeLost() (uint64, error)
}

// shortcut is a worker's part in it.
type shortcut struct {
	seed maphash.Seed
	// seen are questions that came here, so that what is asked once takes no room in the
	// datapath. Several questions share a place: the last has it.
	seen  *[2048][seenWays]seenQuestion
	name  []byte
	query []byte
	// standing is how the addresses of the last answer stand.
	standing Standing
	addrs    []netip.Addr
	// boot is when the datapath's clock began, as seen when that was looked at last.
	boot, looked time.Time
}

type seenQuestion struct {
	hash, round uint64 // round: in which the datapath was told; 0: not yet
	at          time.Time
}

// seenWays is how many questions that share a place have room there.
const seenWays = 4

// find is where a question is or may be: the first of those that share its place was seen last.
func (c *shortcut) find(hash uint64) (s *seenQuestion, known bool) {
	row := &c.seen[hash%uint64(len(c.seen))]
	i := 0
	for ; i < seenWays-1 && row[i].hash != hash; i++ {
	}
	known = row[i].hash == hash
	if !known {
		row[i] = seenQuestion{hash: hash}
	}
	if i > 0 {
		row[i], row[i-1] = row[i-1], row[i]
		i--
	}
	return &row[i], known
}

const (
	// knowAgain is when the datapath, which forgets what it has no room for, is told once more.
	knowAgain = time.Second
	// shortcutLooks is how long a question may be under way unseen: who waits for an answer
	// in vain is to see at least that it was asked.
	shortcutLooks = 100 * time.Millisecond
	// beginsAfter is how many looks a process waits that has rules but got no datagram yet: the
	// datapath may not have turned to it.
	beginsAfter = 10
)

// know tells the datapath of a question that s has just allowed, the second time it comes.
func (w *dnsWorker) know(s *snapshot, known *Connection, m *dns.Message) {
	c, cut := w.d.p.config.Shortcut, &w.short
	if c == nil || s == nil || s.round == 0 || w.d.p.snapshot.Load() != s || known.Denied || !m.Plain() {
		return
	}
	if known.Egress == 0 && known.Ingress == 0 { // its rules are gone since: no set says that others may ask it
		return
	}
	asked := m.Question()
	name := asked[:len(asked)-4]
	if len(name) > c.Longest() {
		return
	}
	if cut.seen == nil {
		cut.seen = new([2048][seenWays]seenQuestion)
	}
	cut.name = appendSmall(cut.name[:0], name)
	var h maphash.Hash
	h.SetSeed(cut.seed)
	_, _ = h.Write(cut.name)
	_, _ = h.Write([]byte{byte(m.Type), byte(m.Type >> 8), byte(known.Egress), byte(known.Egress >> 8), byte(known.Ingress), byte(known.Ingress >> 8)})
	sum := h.Sum64()
	seen, before := cut.find(sum)
	if !before {
		return
	}
	if seen.round == s.round && w.now.Sub(seen.at) < knowAgain {
		return
	}
	if err := c.Know(s.round, uint32(known.Egress), uint32(known.Ingress), cut.name, m.Type); err != nil {
		w.d.p.log.Debug("a question takes the long way", "error", err)
	}
	seen.round, seen.at = s.round, w.now
}

// appendSmall appends a name in small letters. Lengths of labels are less than any letter.
func appendSmall(b, name []byte) []byte {
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// tell tells the datapath of an answer that is in force, to a question that took the shortcut,
// so that the same may take it too.
func (w *dnsWorker) tell(round uint64, m *dns.Message) {
	cut, st := &w.short, &w.short.standing
	if st.Endpoint == 0 || m.Answers != len(w.found.Records) || m.Type != dns.TypeA && m.Type != dns.TypeAAAA {
		return
	}
	cut.addrs = cut.addrs[:0]
	for _, r := range w.found.Records {
		cut.addrs = append(cut.addrs, r.Addr)
	}
	asked := m.Question()
	cut.name = appendSmall(cut.name[:0], asked[:len(asked)-4])
	until := monotonic() // before the other clock is read: rather too early than too late
	until += time.Until(st.Until)
	if err := w.d.p.config.Shortcut.Tell(round, st.Endpoint, cut.name, m.Type, cut.addrs, st.As, until, st.Floor); err != nil {
		w.d.p.log.Debug("an answer takes the long way", "error", err)
	}
}

// clockHolds is how long the two clocks are taken to be as far apart as they were: asking costs
// a system call.
const clockHolds = 100 * time.Millisecond

// wall is what the clock on the wall showed when the datapath's showed at.
func (w *dnsWorker) wall(at time.Duration) time.Time {
	w.clock()
	return w.short.boot.Add(at)
}

// clock looks at both clocks now and then, and reports whether the one on the wall was set.
func (w *dnsWorker) clock() (set bool) {
	c := &w.short
	if w.now.Sub(c.looked) < clockHolds && !w.now.Before(c.looked) {
		return false
	}
	before := c.boot
	c.looked = w.now
	c.boot = time.Now().Round(0).Add(-monotonic())
	return !before.IsZero() && c.boot.Sub(before).Abs() > clockStep
}

// clockStep is by how much the clock on the wall may go astray until what lasts by it and what
// lasts by the datapath's are no longer the same.
const clockStep = time.Second / 2

// monotonic is the time that the datapath's clock shows.
func monotonic() time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano())
}
