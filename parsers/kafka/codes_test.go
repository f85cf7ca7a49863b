package kafka

import (
	"testing"

	segmentio "github.com/segmentio/kafka-go"
)

// TestErrorCodes holds our numbers to what a client calls them.
func TestErrorCodes(t *testing.T) {
	for code, want := range map[int16]segmentio.Error{
		codeTopicDenied:        segmentio.TopicAuthorizationFailed,
		codeGroupDenied:        segmentio.GroupAuthorizationFailed,
		codeClusterDenied:      segmentio.ClusterAuthorizationFailed,
		codeTransactionDenied:  segmentio.TransactionalIDAuthorizationFailed,
		codeUnsupportedVersion: segmentio.UnsupportedVersion,
		codeNoFetchSession:     segmentio.FetchSessionIDNotFound,
	} {
		if int(code) != int(want) {
			t.Errorf("%d is not %v", code, want)
		}
	}
}
