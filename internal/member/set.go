package member

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Limits of a set. They bound what members can make a node keep; a set that meets one is incomplete, which gossip repairs
// only when there is room again (spec/20-records.md#limits).
const (
	maxRecords   = 65536
	maxReserved  = 8192 // of those, kept free for genesis, admin, revocation, adopt and rendezvous records
	maxPerSigner = 4096
	maxUnknown   = 256 // records of unknown kinds of one signer
	maxPen       = 256
)

// Set holds the accepted records of one network. See the package comment for ownership.
type Set struct {
	network key.NetworkID
	genesis *entry // nil: not known yet

	byID  map[wire.RecordID]*entry
	kinds map[wire.Kind][]*entry // in order of acceptance; node infos are in infos only
	order []*entry               // all but node infos, in order of acceptance: signers come before what they sign
	infos map[key.Public]*entry  // the newest node info of each signer

	granted map[key.Public]wire.Rights     // rights that a key was ever given
	members map[key.Public]bool            // keys that a member record ever named
	invites map[wire.RecordPrefix][]*entry // more than one only if an admin searched for a collision
	steps   map[wire.RecordPrefix][]*entry // what rendezvous records can follow; likewise
	shares  map[key.Public]*share          // what each signer takes up
	pen     []*entry                       // oldest first
	penned  map[wire.RecordID]bool

	eval   *evaluation // nil: to be made
	roster *Roster     // nil: to be made
}

// share counts the records of one signer.
type share struct{ all, unknown int }

// entry is an accepted or penned record with what is needed again and again.
type entry struct {
	rec      wire.Record
	body     any        // pointer to the payload's type; nil for unknown kinds
	signer   key.Public // who answers for the record: its one signer, or the witness of a join
	signerID key.NodeID
	time     int64 // Unix seconds, as stated
}

// Result says what [Set.Add] changed.
type Result struct {
	Accepted   []wire.Record   // the record and what it freed from the pen, signers first; to be stored and passed on
	Superseded []wire.RecordID // no longer in the set; to be dropped from storage
}

// NewSet returns an empty set of a network. The first record that it accepts is the genesis.
func NewSet(network key.NetworkID) *Set {
	return &Set{
		network: network,
		byID:    map[wire.RecordID]*entry{}, kinds: map[wire.Kind][]*entry{}, infos: map[key.Public]*entry{},
		granted: map[key.Public]wire.Rights{}, members: map[key.Public]bool{}, invites: map[wire.RecordPrefix][]*entry{}, steps: map[wire.RecordPrefix][]*entry{},
		shares: map[key.Public]*share{}, penned: map[wire.RecordID]bool{},
	}
}

// Network returns the network that the set is of.
func (s *Set) Network() key.NetworkID { return s.network }

// Len returns the number of accepted records.
func (s *Set) Len() int { return len(s.byID) }

// Has reports whether the record is in the set. Penned ones are not.
func (s *Set) Has(id wire.RecordID) bool { return s.byID[id] != nil }

// Records returns the accepted records as they came, in an order in which an empty set accepts each at once. The caller
// owns the outer slice only.
func (s *Set) Records() [][]byte {
	out := make([][]byte, 0, len(s.byID))
	for _, e := range s.order {
		out = append(out, e.rec.Raw)
	}
	infos := make([]*entry, 0, len(s.infos))
	for _, e := range s.infos {
		infos = append(infos, e)
	}
	slices.SortFunc(infos, byTime)
	for _, e := range infos {
		out = append(out, e.rec.Raw)
	}
	return out
}

// Add takes one record, from whomever. The error is one of ErrKnown, ErrSuperseded, ErrPenned, ErrInvalid and ErrFull;
// Result is empty then. raw is copied. A join that lacks its witness's signature alone is known when the set has it whole:
// so it comes from a newcomer that joins again (spec/30-join.md#known).
func (s *Set) Add(raw []byte) (Result, error) {
	e, err := s.open(raw)
	if err != nil {
		return Result{}, err
	}
	res, err := s.take(e)
	if errors.Is(err, ErrPenned) {
		s.confine(e)
	}
	return res, err
}

// AddShown takes one record of a [Set.Chain] from someone who may be no member; the errors are those of Add. What waits for
// others is not kept. What is no part of a chain, and what was signed by one who is neither member nor admin now, is ErrInvalid: else those
// who were put out could make all others keep what they sign (spec/30-join.md#proof).
func (s *Set) AddShown(raw []byte) (Result, error) {
	e, err := s.open(raw)
	if err != nil {
		return Result{}, err
	}
	r := s.Roster()
	if _, stands := r.ByID(e.signerID); !stands && r.Rights(e.signerID) == 0 {
		return Result{}, fmt.Errorf("%w: signer is no member", ErrInvalid)
	}
	switch e.rec.Kind {
	case wire.KindAdmin, wire.KindInvite, wire.KindMember, wire.KindNodeInfo:
		return s.take(e)
	}
	return Result{}, fmt.Errorf("%w: kind %d proves no membership", ErrInvalid, e.rec.Kind)
}

// open reads a record that is new, and checks its signatures.
func (s *Set) open(raw []byte) (*entry, error) {
	e, err := s.parse(bytes.Clone(raw))
	switch {
	case errors.Is(err, errUnwitnessed) && s.witnessed(e):
		return nil, ErrKnown
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	case s.byID[e.rec.ID] != nil:
		return nil, ErrKnown
	case s.outdated(e):
		return nil, ErrSuperseded
	case s.penned[e.rec.ID]:
		return nil, ErrPenned
	case !e.rec.Verify(s.network):
		return nil, fmt.Errorf("%w: bad signature", ErrInvalid)
	}
	return e, nil
}

// take accepts e, and what it frees from the pen.
func (s *Set) take(e *entry) (res Result, err error) {
	if err := s.settle(e, &res); err != nil {
		return Result{}, err
	}
	if grants(e.rec.Kind) {
		s.release(&res)
	}
	return res, nil
}

// AddAll takes many records in any order, such as those of a file or of an introducer, however many wait for others among
// them. rejected counts those that were neither accepted nor known.
func (s *Set) AddAll(raws [][]byte) (res Result, rejected int) {
	for progress := true; progress && len(raws) > 0; {
		progress = false
		var wait [][]byte
		for _, raw := range raws {
			r, err := s.Add(raw)
			switch {
			case err == nil:
				progress = true
				res.Accepted = append(res.Accepted, r.Accepted...)
				res.Superseded = append(res.Superseded, r.Superseded...)
			case errors.Is(err, ErrPenned):
				wait = append(wait, raw)
			case errors.Is(err, ErrInvalid), errors.Is(err, ErrFull):
				rejected++
			}
		}
		raws = wait
	}
	return res, rejected + len(raws)
}

// parse decodes a record and checks all that can be checked without other records and without arithmetic on curves. With
// errUnwitnessed the entry is there, without an id that means anything.
func (s *Set) parse(raw []byte) (*entry, error) {
	rec, err := wire.ParseRecord(s.network, raw)
	if err != nil {
		return nil, err
	}
	body, err := wire.ParsePayload(rec.Kind, rec.Payload)
	if err != nil {
		return nil, err
	}
	if err := validate(body); err != nil {
		return nil, fmt.Errorf("record of kind %d: %w", rec.Kind, err)
	}
	e := &entry{rec: rec, body: body, signer: rec.Sigs[0].Signer}
	if err := s.shape(e); errors.Is(err, errUnwitnessed) {
		return e, err
	} else if err != nil {
		return nil, fmt.Errorf("record of kind %d: %w", rec.Kind, err)
	}
	e.signerID = e.signer.NodeID()
	return e, nil
}

// settle accepts e or says why not.
func (s *Set) settle(e *entry, res *Result) error {
	if s.outdated(e) {
		return ErrSuperseded
	}
	if err := s.acceptable(e); err != nil {
		return err
	}
	if err := s.charge(e); err != nil {
		return err
	}
	s.byID[e.rec.ID] = e
	if e.rec.Kind == wire.KindNodeInfo {
		if old := s.infos[e.signer]; old != nil {
			delete(s.byID, old.rec.ID)
			res.Superseded = append(res.Superseded, old.rec.ID)
		}
		s.infos[e.signer] = e
	} else {
		s.order = append(s.order, e)
		s.kinds[e.rec.Kind] = append(s.kinds[e.rec.Kind], e)
	}
	s.learn(e)
	s.eval, s.roster = nil, nil
	res.Accepted = append(res.Accepted, e.rec)
	return nil
}

// charge books e on its signer's share. Node infos are free: there is one for each member record.
func (s *Set) charge(e *entry) error {
	if e.rec.Kind == wire.KindNodeInfo {
		return nil
	}
	limit := maxRecords
	switch {
	case s.granted[e.signer] == 0:
		limit -= maxReserved
	case e.rec.Kind != wire.KindGenesis && e.rec.Kind != wire.KindAdmin && !canFollow(e.rec.Kind):
		limit -= maxReserved
	}
	sh := s.shares[e.signer]
	if sh == nil {
		sh = &share{}
		s.shares[e.signer] = sh
	}
	if len(s.order) >= limit || sh.all >= maxPerSigner || e.body == nil && sh.unknown >= maxUnknown {
		return ErrFull
	}
	sh.all++
	if e.body == nil {
		sh.unknown++
	}
	return nil
}

// outdated reports whether e is a node info older than the one in the set: of two with one number, the lower id counts.
func (s *Set) outdated(e *entry) bool {
	old := s.infos[e.signer]
	if e.rec.Kind != wire.KindNodeInfo || old == nil {
		return false
	}
	a, b := e.body.(*wire.NodeInfo).Seq, old.body.(*wire.NodeInfo).Seq
	return a < b || a == b && bytes.Compare(e.rec.ID[:], old.rec.ID[:]) > 0
}

// confine puts e into the pen, and the oldest out when it is full.
func (s *Set) confine(e *entry) {
	if len(s.pen) == maxPen {
		delete(s.penned, s.pen[0].rec.ID)
		s.pen = slices.Delete(s.pen, 0, 1)
	}
	s.pen = append(s.pen, e)
	s.penned[e.rec.ID] = true
}

// release tries the pen again until nothing more comes out.
func (s *Set) release(res *Result) {
	for again := true; again; {
		again = false
		var stay []*entry
		for _, e := range s.pen {
			err := s.settle(e, res)
			if errors.Is(err, ErrPenned) {
				stay = append(stay, e)
				continue
			}
			delete(s.penned, e.rec.ID)
			again = again || err == nil && grants(e.rec.Kind)
		}
		s.pen = stay
	}
}

// byTime orders records by their stated time, then by id: an order that all nodes agree on.
func byTime(a, b *entry) int {
	if a.time != b.time {
		if a.time < b.time {
			return -1
		}
		return 1
	}
	return bytes.Compare(a.rec.ID[:], b.rec.ID[:])
}
