package observe

// DropReason says why something was dropped or refused. Where Hubble's
// flow.DropReason has a fitting number it is used, so that its tools show the
// right word; headgate's own are from 230, which Hubble leaves free. The numbers
// are those of enum drop_reason in bpf/src/lib/reason.h.
type DropReason uint8

const (
	ReasonNone             DropReason = 0
	ReasonInvalidSourceMAC DropReason = 130
	ReasonInvalidSourceIP  DropReason = 132 // spoofed
	ReasonPolicyDenied     DropReason = 133
	ReasonInvalidPacket    DropReason = 134
	ReasonUnsupportedL3    DropReason = 139
	ReasonUnknownL4        DropReason = 142
	ReasonConntrackFull    DropReason = 155
	ReasonFragment         DropReason = 157
	ReasonNoEndpoint       DropReason = 162 // destination in an endpoint range, nobody there
	ReasonOutside          DropReason = 230 // traffic to or from other networks
	ReasonNoRoute          DropReason = 231 // no proxy serves these L7 sets
	ReasonProxyDown        DropReason = 232 // the proxy has no listener
	ReasonNoSocket         DropReason = 233 // redirected connection without its socket
	ReasonNotReady         DropReason = 234 // endpoint has no policy in force yet
	ReasonNeighbour        DropReason = 235 // ARP or NDP for somebody else, router advertisement
	ReasonUnknownIdentity  DropReason = 236
	ReasonTTL              DropReason = 237
	ReasonUnsupportedProto DropReason = 238 // a protocol that cannot be tracked yet
	ReasonICMPError        DropReason = 239
	ReasonRedirectProtocol DropReason = 240 // an L7 rule on something that is not TCP
)
