package proxy

import (
	"net/netip"
	"time"

	"github.com/headgate/headgate/proxy/fqdn"
)

// Learner takes what answers say of names, and says when the kernel admits the addresses.
type Learner interface {
	// Learn is called for each answer that was matched to an allowed question, before it is released. It does not block
	// and keeps nothing of what it is given. It calls done once, from any goroutine (also from within Learn), when every
	// address is in force in the kernel's maps for every subject whose policy the name concerns: nil, or why it is not.
	// The caller has a deadline of its own and does not release the answer before done(nil).
	Learn(a Learnt, done func(error))
}

// Immediate is a Learner that can often say at once.
type Immediate interface {
	// LearnNow does as Learn, and keeps nothing either, but says how it went: now is false if that would take its time,
	// and then it is to be given to Learn. s is how the addresses stand, if they are in force.
	LearnNow(a Learnt, s *Standing) (now bool, err error)
}

// Standing is how the addresses of an answer stand once they are in force.
type Standing = fqdn.Standing

// Learnt is what one answer says of the name that was asked.
type Learnt struct {
	Client    netip.Addr
	Name      string   // asked, in normal form
	Chain     []string // the names that aliases led to, in order
	Addresses []LearntAddress
	At        time.Time
}

// LearntAddress is one address of a name, and for how long it may be kept.
type LearntAddress = fqdn.Address
