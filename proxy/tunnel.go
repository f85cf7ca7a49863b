package proxy

import (
	"bytes"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// rememberUpgrade keeps a request that may turn the connection into a tunnel, so
// that the tunnel can be judged again when the policy changes.
func (c *conn) rememberUpgrade(id uint64, r *policy.HTTPRequest) {
	if c.lasting() != nil {
		return // its session keeps requests itself
	}
	asks := string(r.Method) == http.MethodConnect
	for i := range r.Headers {
		asks = asks || len(r.Headers[i].Name) == len("upgrade") && bytes.EqualFold(r.Headers[i].Name, []byte("upgrade"))
	}
	if !asks {
		return
	}
	c.upgradeID = id
	kept := &policy.HTTPRequest{Method: bytes.Clone(r.Method), Path: bytes.Clone(r.Path), Host: bytes.Clone(r.Host)}
	for _, h := range r.Headers {
		kept.Headers = append(kept.Headers, policy.HTTPHeader{Name: bytes.Clone(h.Name), Value: bytes.Clone(h.Value)})
	}
	c.upgrade = kept
}

// look is what a tunnel was judged again for.
type look struct {
	snapshot *snapshot
	revision uint32
	activity uint32
}

// recheck judges a tunnel again, by the request that opened it, and ends it if
// that is denied now. It says whether the datapath has not judged it yet.
func (c *conn) recheck() (lagging bool) {
	defer c.guard("a change of policy")
	c.mu.Lock()
	defer c.mu.Unlock()
	now := look{c.p.snapshot.Load(), c.p.config.Connections.Revision(), c.activity.Load()}
	judged := checked{c.judgedBy, c.revision}
	requests := c.lasting()
	if requests != nil {
		// What came last may have been judged by what changed; what came before was not.
		judged = c.checked
	}
	switch {
	case c.dead || judged == checked{now.snapshot, now.revision}:
		return false
	case now == c.looked && time.Since(c.hurried) > hurryFor && time.Since(c.lookedAt) < lookAfter:
		return true // the datapath judges it when it moves again, which need not come by here
	}
	c.looked, c.lookedAt = now, time.Now()
	if requests != nil {
		c.recheckRequests(requests)
		return !c.dead && c.p.config.Connections.Revision() != c.revision
	}
	var decision policy.Decision
	var direction policy.Direction
	switch {
	case c.passed:
		decision.Reason = "what is on the connection cannot be read"
		if pass, _ := c.passes(); pass {
			decision.Verdict = policy.Allow
		}
	case c.upgrade != nil:
		decision, direction = c.judge(c.upgrade)
	case c.hello != nil:
		decision, direction = c.judge(c.hello)
	default:
		if decision.Reason = c.lookAgain(); decision.Reason == "" {
			c.judgedBy = c.p.snapshot.Load()
			if c.known.Egress == 0 && c.known.Ingress == 0 {
				decision.Verdict = policy.Allow
			}
		}
	}
	if decision.Verdict == policy.Allow {
		return c.p.config.Connections.Revision() != c.revision
	}
	var opened policy.Request
	switch {
	case c.upgrade != nil:
		opened = c.upgrade
	case c.hello != nil:
		opened = c.hello
	}
	c.forbid(opened, decision, direction)
	c.kill(true)
	return false
}

// hurryFor is how long an answer to a probe is waited for at every look; then there is one
// look in lookAfter.
const (
	hurryFor  = 5 * time.Second
	lookAfter = time.Second
)

// hurry has the client's stack say something soon if the datapath has not judged the
// connection again: it does so at a packet, and on a silent connection there is none. What
// was said may have been judged just before the next change, so each asks anew.
func (c *conn) hurry(behind bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	revision := c.p.config.Connections.Revision()
	if c.dead || behind == c.probing && (!behind || revision == c.hurriedTo) {
		return
	}
	c.hurriedTo = revision
	idle := redirect.KeepAlive
	if c.probing = behind; behind {
		c.hurried, idle = time.Now(), time.Second
	}
	_ = c.ends[parsers.Client].sock.Control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(idle/time.Second))
	})
}

// opens notes whether an answer makes the connection a tunnel.
func (c *conn) opens(id uint64, status int) {
	if c.upgrade == nil || id != c.upgradeID {
		return
	}
	connected := string(c.upgrade.Method) == http.MethodConnect && status/100 == 2
	if connected || status == http.StatusSwitchingProtocols {
		c.opened = true
		c.tunnels()
	}
}

// tunnels notes that what the client sends is no longer judged from here on.
func (c *conn) tunnels() {
	c.tunnel.Store(true)
	c.stands()
}

// stands has what is under way judged again whenever policy changes, and once now:
// it may have changed since it was judged.
func (c *conn) stands() {
	c.p.mu.Lock()
	c.p.standing[c] = struct{}{}
	c.p.mu.Unlock()
	c.p.lookAtTunnels()
}

// reportTunnel records how much a tunnel carried, with mu held, when it is over.
func (c *conn) reportTunnel() {
	if !c.opened && !c.passed {
		return
	}
	detail := fmt.Sprintf("tunnel ended: %d bytes from the client, %d from the server", c.ends[0].tunnelled, c.ends[1].tunnelled)
	if c.opened {
		detail += fmt.Sprintf(", opened by %s http://%s%s", c.upgrade.Method, c.upgrade.Host, c.upgrade.Path)
	}
	c.reportAs(observe.Forwarded, 0, detail)
}
