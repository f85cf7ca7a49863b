package redirect

import (
	"errors"
	"net/netip"
	"time"

	"github.com/headgate/headgate/policy"
)

// Names is what rules about DNS names need to hold where the answers are seen: in
// headgate's own proxy, also while no agent is there. Other backends take no notice.
type Names struct {
	Tables map[uint32]*policy.NameTable // by number, as subjects in the gate name them
	// Rules and Sets are the numbers that stand for them in the gate.
	Rules map[policy.Ref]uint32
	Sets  map[policy.SetID]SetNumber
	// Prefixes are all that have an identity of their own, before or after this change,
	// but those of length zero.
	Prefixes  []netip.Prefix
	Endpoints []NamedEndpoint // all there are
	Limits    NameLimits
}

// NamedEndpoint is an endpoint that may ask for names.
type NamedEndpoint struct {
	ID    uint16
	Name  string // namespace/name
	Addrs []netip.Addr
	Table uint32 // of rules about names; 0: none
}

// NameLimits bound what is kept of answers. Zero fields take the defaults.
type NameLimits struct {
	MinTTL      time.Duration // an answer counts at least for so long. 10 s
	Grace       time.Duration // and so much longer, also after the last connection. 10 s
	PerName     int           // addresses of one name that an endpoint is told. 1000
	PerEndpoint int           // addresses that one endpoint may know. NamesPerEndpoint
}

// NamesPerEndpoint is the default of NameLimits.PerEndpoint: a sixteenth of the room, so
// that one endpoint does not take that of all others.
const NamesPerEndpoint = 1 << 16

// MissingSet is a set of rules that nobody has made: a union that came to be by what an
// address is known as. Its connections are refused until a snapshot holds its number.
type MissingSet struct {
	Table  uint32
	Prefix netip.Prefix
	Picked []policy.FQDN
}

// ErrStaleNames says that the datapath may know addresses as what they are no more. New
// tables of rules about names must not be in force there: they could allow what they deny.
var ErrStaleNames = errors.New("the datapath keeps names that are no more")
