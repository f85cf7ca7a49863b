package proxy

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// guard is deferred wherever the code of a session or of a judge runs, by a pump, by
// the janitor or by a timer: its mistake costs this connection, not the others. Who
// locks mu defers it before, so that mu is free again.
func (c *conn) guard(during string) {
	r := recover()
	if r == nil {
		return
	}
	c.p.log.Error("connection failed", "during", during, "source", c.source, "destination", c.destination,
		"panic", r, "stack", slog.StringValue(string(debug.Stack())))
	c.abort(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.malformed(c.last, fmt.Errorf("the proxy failed during %s", during))
}
