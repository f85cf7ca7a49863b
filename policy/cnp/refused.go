package cnp

// What is known of the language but not read yet, and what to write meanwhile.
var (
	refusedInRule = map[string]string{
		"toFQDNs":        "write toCIDR, or toEntities: [world]",
		"toServices":     "write toEndpoints, or toCIDR",
		"toNodes":        "write toEntities: [remote-node], or toCIDR",
		"fromNodes":      "write fromEntities: [remote-node], or fromCIDR",
		"toGroups":       "write toCIDR",
		"fromGroups":     "write fromCIDR",
		"toRequires":     "write the labels in every toEndpoints",
		"fromRequires":   "write the labels in every fromEndpoints",
		"authentication": "delete it",
	}
	refusedInToPorts = map[string]string{
		"terminatingTLS": "delete it; rules then see plain text only",
		"originatingTLS": "delete it; rules then see plain text only",
		"serverNames":    "write toCIDR to narrow the peers",
		"listener":       "write rules.http",
	}
	refusedInDenyPorts = map[string]string{
		"rules":          "write ports alone, and allow the good requests by rules in ingress or egress",
		"terminatingTLS": "delete it",
		"originatingTLS": "delete it",
		"serverNames":    "delete it",
		"listener":       "delete it",
	}
	refusedL7 = map[string]string{
		"kafka":   "write rules.http, or leave rules out to allow the port",
		"dns":     "leave rules out to allow the port",
		"grpc":    "write rules.http with method POST and path /package.Service/Method",
		"l7":      "write rules.http",
		"l7proto": "write rules.http",
	}
	refusedInHTTP = map[string]string{
		"headerMatches": `write headers: ["Name: value"]`,
	}
	refusedInCIDRSet = map[string]string{
		"cidrGroupRef":      "write cidr",
		"cidrGroupSelector": "write cidr",
	}
)
