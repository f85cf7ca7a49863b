package cnp

// What Cilium knows and this does not read, and what to write instead.
var (
	refusedInRule = map[string]string{
		"toGroups":       "write toCIDR",
		"fromGroups":     "write fromCIDR",
		"authentication": "delete it",
	}
	refusedInEgressDeny = map[string]string{
		"toGroups":       "write toCIDR",
		"authentication": "delete it",
		"toFQDNs":        "a deny by name would miss every address not seen yet; write toCIDR",
	}
	refusedL7 = map[string]string{
		"l7":      "write http, grpc, kafka or dns",
		"l7proto": "write http, grpc, kafka or dns",
	}
)
