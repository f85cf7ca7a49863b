package policy

import (
	"slices"
	"strings"
)

// The APIs of Kafka that rules and roles are about.
const (
	KafkaProduce         int16 = 0
	KafkaFetch           int16 = 1
	KafkaListOffsets     int16 = 2
	KafkaMetadata        int16 = 3
	KafkaOffsetCommit    int16 = 8
	KafkaOffsetFetch     int16 = 9
	KafkaFindCoordinator int16 = 10
	KafkaJoinGroup       int16 = 11
	KafkaHeartbeat       int16 = 12
	KafkaLeaveGroup      int16 = 13
	KafkaSyncGroup       int16 = 14
	KafkaSaslHandshake   int16 = 17
	KafkaAPIVersions     int16 = 18
	KafkaInitProducerID  int16 = 22
	KafkaLeaderEpoch     int16 = 23 // OffsetForLeaderEpoch
	KafkaAddPartitions   int16 = 24 // ... ToTxn
	KafkaAddOffsets      int16 = 25 // ... ToTxn
	KafkaEndTxn          int16 = 26
	KafkaTxnOffsetCommit int16 = 28
	KafkaDescribeConfigs int16 = 32
	KafkaAlterConfigs    int16 = 33
	KafkaSaslAuth        int16 = 36
	KafkaAlterConfigsBy  int16 = 44 // IncrementalAlterConfigs
	KafkaDescribeCluster int16 = 60
	KafkaGroupHeartbeat  int16 = 68

	KafkaTopicPartitions  int16 = 75 // DescribeTopicPartitions
	KafkaShareHeartbeat   int16 = 76
	KafkaShareFetch       int16 = 78
	KafkaShareAcknowledge int16 = 79
	KafkaStreamsHeartbeat int16 = 88
)

// kafkaAPIs are the names of every API that is known, in lower case as rules
// have them. An API that is not among them is denied wherever Kafka rules apply.
var kafkaAPIs = map[int16]string{
	0: "produce", 1: "fetch", 2: "offsets", 3: "metadata", 4: "leaderandisr", 5: "stopreplica", 6: "updatemetadata",
	7: "controlledshutdown", 8: "offsetcommit", 9: "offsetfetch", 10: "findcoordinator", 11: "joingroup", 12: "heartbeat",
	13: "leavegroup", 14: "syncgroup", 15: "describegroups", 16: "listgroups", 17: "saslhandshake", 18: "apiversions",
	19: "createtopics", 20: "deletetopics", 21: "deleterecords", 22: "initproducerid", 23: "offsetforleaderepoch",
	24: "addpartitionstotxn", 25: "addoffsetstotxn", 26: "endtxn", 27: "writetxnmarkers", 28: "txnoffsetcommit",
	29: "describeacls", 30: "createacls", 31: "deleteacls", 32: "describeconfigs", 33: "alterconfigs",
	34: "alterreplicalogdirs", 35: "describelogdirs", 36: "saslauthenticate", 37: "createpartitions",
	38: "createdelegationtoken", 39: "renewdelegationtoken", 40: "expiredelegationtoken", 41: "describedelegationtoken",
	42: "deletegroups", 43: "electleaders", 44: "incrementalalterconfigs", 45: "alterpartitionreassignments",
	46: "listpartitionreassignments", 47: "offsetdelete", 48: "describeclientquotas", 49: "alterclientquotas",
	50: "describeuserscramcredentials", 51: "alteruserscramcredentials", 55: "describequorum", 57: "updatefeatures",
	60: "describecluster", 61: "describeproducers", 64: "unregisterbroker", 65: "describetransactions",
	66: "listtransactions", 68: "consumergroupheartbeat", 69: "consumergroupdescribe", 71: "gettelemetrysubscriptions",
	72: "pushtelemetry", 74: "listconfigresources", 75: "describetopicpartitions", 76: "sharegroupheartbeat",
	77: "sharegroupdescribe", 78: "sharefetch", 79: "shareacknowledge", 80: "addraftvoter", 81: "removeraftvoter",
	83: "initializesharegroupstate", 84: "readsharegroupstate", 85: "writesharegroupstate", 86: "deletesharegroupstate",
	87: "readsharegroupstatesummary", 88: "streamsgroupheartbeat", 89: "streamsgroupdescribe",
	90: "describesharegroupoffsets", 91: "altersharegroupoffsets", 92: "deletesharegroupoffsets",
}

// kafkaAliases are other names of APIs.
var kafkaAliases = map[string]int16{"listoffsets": 2, "createtopic": 19, "deletetopic": 20, "electpreferredleaders": 43,
	"listclientmetricsresources": 74}

// KafkaAPI returns the number of an API by its name, in any case.
func KafkaAPI(name string) (int16, bool) {
	name = strings.ToLower(name)
	if key, ok := kafkaAliases[name]; ok {
		return key, true
	}
	for key, known := range kafkaAPIs {
		if known == name {
			return key, true
		}
	}
	return 0, false
}

// KafkaAPIName returns the name of an API; that of an unknown one is empty.
func KafkaAPIName(key int16) string { return kafkaAPIs[key] }

// KafkaRole returns the APIs that a role stands for:
//
//	produce  Produce (0), Metadata (3), ApiVersions (18), and InitProducerId (22)
//	         without a transactional id, which idempotent producers need
//	consume  Fetch (1), ListOffsets (2), OffsetForLeaderEpoch (23), without which
//	         members of groups that go on from a committed offset fail, Metadata
//	         (3), ApiVersions (18), FindCoordinator (10), and those of groups:
//	         OffsetCommit (8), OffsetFetch (9), JoinGroup (11), Heartbeat (12),
//	         LeaveGroup (13), SyncGroup (14), ConsumerGroupHeartbeat (68)
//
// Where the rule names transactional ids, both stand for what transactions of
// these need too: FindCoordinator (10), InitProducerId (22), AddPartitionsToTxn
// (24), AddOffsetsToTxn (25), EndTxn (26) and TxnOffsetCommit (28).
func KafkaRole(role string, transactional bool) ([]int16, bool) {
	var keys []int16
	switch strings.ToLower(role) {
	case "produce":
		keys = []int16{KafkaProduce, KafkaMetadata, KafkaAPIVersions, KafkaInitProducerID}
	case "consume":
		keys = []int16{
			KafkaFetch, KafkaListOffsets, KafkaMetadata, KafkaOffsetCommit, KafkaOffsetFetch, KafkaFindCoordinator,
			KafkaJoinGroup, KafkaHeartbeat, KafkaLeaveGroup, KafkaSyncGroup, KafkaAPIVersions, KafkaGroupHeartbeat,
			KafkaLeaderEpoch,
		}
	default:
		return nil, false
	}
	if transactional {
		keys = append(keys, KafkaFindCoordinator, KafkaInitProducerID, KafkaAddPartitions, KafkaAddOffsets, KafkaEndTxn, KafkaTxnOffsetCommit)
	}
	slices.Sort(keys)
	return slices.Compact(keys), true
}

// attends reports whether a client needs the API to do anything with a topic or
// in a group, without being about one: it finds the brokers (Java's administration does
// by DescribeCluster, of which any client of a broker may know the answer), logs in, and
// stays in its group.
func attends(key int16) bool {
	switch key {
	case KafkaMetadata, KafkaFindCoordinator, KafkaJoinGroup, KafkaHeartbeat, KafkaLeaveGroup, KafkaSyncGroup,
		KafkaSaslHandshake, KafkaAPIVersions, KafkaInitProducerID, KafkaSaslAuth, KafkaDescribeCluster, KafkaGroupHeartbeat,
		KafkaShareHeartbeat, KafkaShareFetch, KafkaShareAcknowledge, KafkaStreamsHeartbeat:
		return true
	}
	return false
}

// ofResources reports whether the API is about resources of many kinds. A rule that
// names a topic is no word about a broker's configuration.
func ofResources(key int16) bool {
	return key == KafkaDescribeConfigs || key == KafkaAlterConfigs || key == KafkaAlterConfigsBy
}

// uses reports whether programs that use topics, groups and transactions call the
// API. All others are administration.
func uses(key int16) bool {
	switch key {
	case KafkaProduce, KafkaFetch, KafkaListOffsets, KafkaMetadata, KafkaOffsetCommit, KafkaOffsetFetch, KafkaFindCoordinator,
		KafkaJoinGroup, KafkaHeartbeat, KafkaLeaveGroup, KafkaSyncGroup, KafkaSaslHandshake, KafkaAPIVersions,
		KafkaInitProducerID, KafkaLeaderEpoch, KafkaAddPartitions, KafkaAddOffsets, KafkaEndTxn, KafkaTxnOffsetCommit,
		KafkaSaslAuth, KafkaDescribeCluster, KafkaGroupHeartbeat, KafkaTopicPartitions, KafkaShareHeartbeat, KafkaShareFetch,
		KafkaShareAcknowledge, KafkaStreamsHeartbeat:
		return true
	}
	return false
}
