package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

func TestControllersTryAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := newControllers(slog.New(slog.DiscardHandler))
	var runs atomic.Int32
	wake := make(chan struct{})
	c.every(ctx, "flaky", time.Hour, wake, func(context.Context) error {
		if runs.Add(1) == 1 {
			return errors.New("not yet")
		}
		return nil
	})
	health := func(ok bool, n uint64) bool {
		s := c.list()[0]
		return s.Ok == ok && s.Runs == n
	}
	waitFor(t, func() bool { return health(false, 1) })
	wake <- struct{}{}
	waitFor(t, func() bool { return health(true, 2) })
	if s := c.list()[0]; s.Failures != 1 || s.Error != "" {
		t.Errorf("after one failure and one success: %+v", s)
	}
	cancel()
	c.wg.Wait()
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatal("waited in vain")
}
