package policy

// Identity is the number that stands for a set of labels. Zero is unknown and
// never matches a rule, not even one for every peer.
//
// The ranges are Cilium's, so that numbers mean the same in both: reserved
// identities below 256, workloads from 256 to 65535 (bits 16 to 23 are the
// cluster), identities that only this node knows (CIDRs, DNS names) from 1<<24.
type Identity uint32

// Reserved identities, by Cilium's numbers.
const (
	IdentityUnknown       Identity = 0
	IdentityHost          Identity = 1
	IdentityWorld         Identity = 2
	IdentityUnmanaged     Identity = 3
	IdentityHealth        Identity = 4
	IdentityInit          Identity = 5
	IdentityRemoteNode    Identity = 6
	IdentityKubeAPIServer Identity = 7
	IdentityIngress       Identity = 8
	IdentityWorldIPv4     Identity = 9
	IdentityWorldIPv6     Identity = 10

	IdentityMinWorkload Identity = 256
	IdentityMaxWorkload Identity = 65535
	IdentityMinLocal    Identity = 1 << 24
)

// Reserved reports whether the identity is one of the fixed ones.
func (i Identity) Reserved() bool { return i > 0 && i < IdentityMinWorkload }

// Local reports whether the identity is known to this node only.
func (i Identity) Local() bool { return i >= IdentityMinLocal }
