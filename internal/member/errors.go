package member

import "errors"

// What [Set.Add] answers when a record is not accepted.
var (
	// ErrKnown means that the record is in the set already.
	ErrKnown = errors.New("record is known")
	// ErrSuperseded means that a newer node info of the same node is in the set.
	ErrSuperseded = errors.New("record is superseded")
	// ErrPenned means that no known key gives the record's signers the right to sign it, or that the record follows others
	// that are not known, yet. It waits in the pen.
	ErrPenned = errors.New("record waits for what it depends on to become known")
	// ErrInvalid means that the record can never be accepted. It is wrapped with the reason.
	ErrInvalid = errors.New("record is invalid")
	// ErrFull means that the set, or the signer's share of it, is full.
	ErrFull = errors.New("no room for the record")
)

// What the constructors and lookups answer. The wrapped text is for people.
var (
	// ErrNoRight means that the signer may not do that.
	ErrNoRight = errors.New("not allowed")
	// ErrUnknownMember means that nobody is meant by a name, id or address.
	ErrUnknownMember = errors.New("no such member")
	// ErrAmbiguous means that more than one is meant.
	ErrAmbiguous = errors.New("more than one member matches")
	// ErrNameTaken means that another has the name.
	ErrNameTaken = errors.New("the name is taken")
	// ErrPoolFull means that the network's IPv4 pool has no free address.
	ErrPoolFull = errors.New("the network has no free IPv4 address")
	// ErrAlreadyMember means that the key is a member's already.
	ErrAlreadyMember = errors.New("is a member already")
	// ErrRevoked means that the key was put out: it cannot come back, its owner needs a new one.
	ErrRevoked = errors.New("was put out of the network")
	// ErrUnchanged means that what is asked for is so already.
	ErrUnchanged = errors.New("is so already")
	// ErrBadValue means that a name, time, address or the like is not of its form.
	ErrBadValue = errors.New("not valid")
)
