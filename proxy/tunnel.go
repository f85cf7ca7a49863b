package proxy

import (
	"bytes"
	"fmt"
	"net/http"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// rememberUpgrade keeps a request that may turn the connection into a tunnel, so
// that the tunnel can be judged again when the policy changes.
func (c *conn) rememberUpgrade(id uint64, r *policy.HTTPRequest) {
	if c.lasting.Load() {
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

// recheck judges a tunnel again, by the request that opened it, and ends it if
// that is denied now.
func (c *conn) recheck() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.p.snapshot.Load() == c.judgedBy && c.p.config.Connections.Revision() == c.revision {
		return
	}
	if r, ok := c.session.(parsers.Rechecker); ok && !c.passed {
		c.recheckRequests(r)
		return
	}
	var decision policy.Decision
	var direction policy.Direction
	switch {
	case c.passed:
		if pass, _ := c.passes(); pass {
			return
		}
		decision.Reason = "what is on the connection cannot be read"
	case c.upgrade != nil:
		decision, direction = c.judge(c.upgrade)
	default:
		if decision.Reason = c.lookAgain(); decision.Reason == "" {
			c.judgedBy = c.p.snapshot.Load()
			if c.known.Egress == 0 && c.known.Ingress == 0 {
				decision.Verdict = policy.Allow
			}
		}
	}
	if decision.Verdict == policy.Allow {
		return
	}
	if c.upgrade != nil {
		c.forbid(c.upgrade, decision, direction)
	} else {
		c.forbid(nil, decision, direction)
	}
	c.kill(true)
}

// opens notes whether an answer makes the connection a tunnel.
func (c *conn) opens(id uint64, status int) {
	if c.upgrade == nil || id != c.upgradeID {
		return
	}
	connected := string(c.upgrade.Method) == http.MethodConnect && status/100 == 2
	c.opened = c.opened || connected || status == http.StatusSwitchingProtocols
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
