package redirect

// Packet marks. Bits 8–11 are the magic that says what a mark means; where a mark
// carries an identity it is in the upper 16 bits. The same numbers stand in
// bpf/src/lib/mark.h.
const (
	// MarkMask covers the magic.
	MarkMask = 0xf00
	// MarkToProxy is on packets that the gate handed to a proxy socket. A routing
	// rule delivers them locally whatever their destination.
	MarkToProxy = 0x200
	// MarkAnswer is beside MarkToProxy on datagrams of who was asked.
	MarkAnswer = 0x1000
	// MarkFromProxy is on packets that a proxy sends, to either end.
	MarkFromProxy = 0xb00

	// Table is the routing table that delivers MarkToProxy locally.
	Table = 200
	// RulePriority is before the rules of others, after the kernel's "local".
	RulePriority = 9
)
