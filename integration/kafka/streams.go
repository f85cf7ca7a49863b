package main

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// streams joins a group of Streams programs (KIP-1071) that read topics. No library in
// Go is a member of one, so it is the one request that says what is read.
func (f franz) streams(ctx context.Context) error {
	c, err := kgo.NewClient(f.options(kgo.RetryTimeout(0))...)
	if err != nil {
		return err
	}
	defer c.Close()
	r := kmsg.NewPtrStreamsGroupHeartbeatRequest()
	r.Group, r.MemberID, r.RebalanceTimeoutMillis = f.settings["group"], "hgT3stHgT3stHgT3stHgTA", 10_000
	r.ProcessID = kmsg.StringPtr("hgT3stHgT3stHgT3stHgTB")
	r.ActiveTasks, r.StandbyTasks, r.WarmupTasks, r.ClientTags = []kmsg.TaskIDs{}, []kmsg.TaskIDs{}, []kmsg.TaskIDs{}, []kmsg.StreamsGroupHeartbeatRequestClientTag{}
	part := kmsg.NewStreamsGroupHeartbeatRequestTopologySubtopology()
	part.SubtopologyID, part.SourceTopics = "0", f.topics()
	r.Topology = &kmsg.StreamsGroupHeartbeatRequestTopology{Subtopologies: []kmsg.StreamsGroupHeartbeatRequestTopologySubtopology{part}}
	response, err := c.Broker(1).Request(ctx, r)
	if err != nil {
		return err
	}
	answer := response.(*kmsg.StreamsGroupHeartbeatResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return err
	}
	fmt.Println("joined at epoch", answer.MemberEpoch)
	return nil
}
