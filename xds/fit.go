package xds

import (
	"context"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// What an Envoy makes of its rules depends on its bootstrap: without the runtime keys in it
// a header that is sent twice passes with its first value, and an Envoy that does not know
// such a key leaves it out without a word. So an Envoy that enforces says in its node's
// metadata what bootstrap it has, and only versions are taken that are known to know the keys.

// bootstrapKey is in the metadata, with bootstrapValue, which changes with what rules need
// of the bootstrap.
const (
	bootstrapKey   = "headgate.dev/bootstrap"
	bootstrapValue = "1"
)

// knownMajor and knownMinor are the versions that tests have asked.
const knownMajor, knownMinor = 1, 40

func bootstrapMark() *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{bootstrapKey: structpb.NewStringValue(bootstrapValue)}}
}

// fit reports why an Envoy would not enforce rules as they are meant; nil: it would.
func fit(n *corev3.Node) error {
	if n.GetMetadata().GetFields()[bootstrapKey].GetStringValue() != bootstrapValue {
		return errors.New("it was started with another bootstrap than this agent's, and would take rules for others: start it with what 'headgate xds bootstrap' prints")
	}
	if v := n.GetUserAgentBuildVersion().GetVersion(); v.GetMajorNumber() != knownMajor || v.GetMinorNumber() != knownMinor {
		return fmt.Errorf("%s may take rules for others: use Envoy %d.%d", agentOf(n), knownMajor, knownMinor)
	}
	return nil
}

// turnAway notes that an Envoy that should enforce does not fit; nil: it does. It has no
// rules then, or goes on by those of an agent before, until it is found not to take a change.
func (b *Backend) turnAway(ctx context.Context, err error) {
	b.statusMu.Lock()
	b.unfit = ""
	if err != nil {
		b.unfit = "an Envoy is turned away: " + err.Error()
	}
	b.statusMu.Unlock()
	if err == nil {
		return
	}
	pid := int(whoCalls(ctx).Pid)
	if b.guard.process() == 0 {
		b.guard.connected(pid)
	}
	b.log.Error("an Envoy that should enforce is turned away", "pid", pid, "error", err)
}
