package member

import (
	"bytes"
	"container/heap"
	"slices"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// evaluation is what a set amounts to: who is an admin, who is put out, who is admitted. It is made once for each state of
// the set, in three steps for authority (this file) and one for admission (admit.go). Everything that depends on an order
// is ordered by stated time and id, never by arrival.
//
//  1. From the roots down, in order of rank: an admin counts when someone above gave it rights that still stand; its
//     revocations of lower ranks, and of members and devices, come into force. Whatever can touch an admin from above is
//     settled before the admin itself, so one pass is enough (spec/21-roster.md#rank).
//  2. Revocations of higher ranks by lower ones are judged on the outcome of step 1 (spec/21-roster.md#mutual).
//  3. If step 2 put anyone out, the rights are counted again with that.
type evaluation struct {
	set      *Set
	roots    map[key.NodeID]bool
	admins   map[key.NodeID]*admin // all who were given rights that stood in step 1
	ranks    []*admin              // the same, highest rank first
	removals map[key.NodeID]*removal

	grantsBy map[key.NodeID][]*entry // admin records by signer
	cutsBy   map[key.NodeID][]*entry // revocations by signer, but for those of itself
	adopted  map[adopter]*adoption
	rejects  map[wire.RecordPrefix][]*entry // adopt records by what they reject

	admissions
}

// admin is a key that was given rights.
type admin struct {
	id     key.NodeID
	public key.Public
	rank   int // 0 is the highest
	root   bool
	parent *admin // who gave it its rank; nil for roots
	rights wire.Rights
	from   []grant // all grants by higher ranks
}

// since returns when the first of an admin's grants was made; it has some unless it is a root.
func (a *admin) since() int64 {
	first := a.from[0].rec.time
	for _, g := range a.from {
		first = min(first, g.rec.time)
	}
	return first
}

type grant struct {
	rec *entry
	by  *admin
}

// adopter names all Adopt records of one signer about one subject, which count as one.
type adopter struct{ by, subject key.NodeID }

type adoption struct {
	keep map[wire.RecordPrefix]bool
	recs []*entry
}

// removal is what is in force against one subject.
type removal struct {
	cuts     []cut
	verdicts [2]*verdict // cache, by purpose
}

type cut struct {
	rec *entry
	by  *admin // nil: the subject itself
}

func (c cut) body() *wire.Revocation { return c.rec.body.(*wire.Revocation) }

// purpose says what of a removed subject is in question.
type purpose int

const (
	asAdmin   purpose = iota // what it granted: admins, members, devices, joins by its invites
	asWitness                // joins that it witnessed
)

// verdict says which of the records that a removed subject vouched for stay.
type verdict struct {
	removed bool
	wait    bool       // the decider's list is not complete yet: everything stays
	by      key.NodeID // the decider
	need    uint32     // adopt records that make its list complete
	keep    map[wire.RecordPrefix]bool
}

func (s *Set) evaluate() *evaluation {
	if s.eval != nil {
		return s.eval
	}
	v := &evaluation{set: s, roots: map[key.NodeID]bool{}, admins: map[key.NodeID]*admin{},
		removals: map[key.NodeID]*removal{}, grantsBy: map[key.NodeID][]*entry{}, cutsBy: map[key.NodeID][]*entry{},
		adopted: map[adopter]*adoption{}, rejects: map[wire.RecordPrefix][]*entry{}}
	v.index()
	v.settleRanks()
	if v.settleUpward() {
		for _, a := range v.ranks {
			a.rights = v.standing(a)
		}
	}
	v.admit()
	s.eval = v
	return v
}

// index sorts records by who signed them. What keys say of themselves needs no rights and is in force from the start.
func (v *evaluation) index() {
	for _, e := range v.set.sorted(wire.KindAdmin) {
		v.grantsBy[e.signerID] = append(v.grantsBy[e.signerID], e)
	}
	for _, e := range v.set.sorted(wire.KindRevocation) {
		if subject := e.body.(*wire.Revocation).Subject; subject == e.signerID {
			v.remove(subject, cut{rec: e})
		} else {
			v.cutsBy[e.signerID] = append(v.cutsBy[e.signerID], e)
		}
	}
	for _, e := range v.set.sorted(wire.KindAdopt) {
		b := e.body.(*wire.Adopt)
		a := v.adopted[adopter{e.signerID, b.Subject}]
		if a == nil {
			a = &adoption{keep: map[wire.RecordPrefix]bool{}}
			v.adopted[adopter{e.signerID, b.Subject}] = a
		}
		a.recs = append(a.recs, e)
		for _, id := range b.Keep {
			a.keep[id] = true
		}
		for _, id := range b.Reject {
			v.rejects[id] = append(v.rejects[id], e)
		}
	}
}

// sorted returns the records of a kind in their agreed order.
func (s *Set) sorted(k wire.Kind) []*entry {
	out := slices.Clone(s.kinds[k])
	slices.SortFunc(out, byTime)
	return out
}

// settleRanks is step 1.
func (v *evaluation) settleRanks() {
	if v.set.genesis == nil {
		return
	}
	var queue candidates
	var roots []*admin
	for _, p := range v.set.genesis.body.(*wire.Genesis).Roots {
		a := &admin{id: p.NodeID(), public: p, root: true}
		v.roots[a.id] = true
		roots = append(roots, a)
	}
	waiting := map[key.NodeID][]grant{}
	for _, a := range roots {
		v.settle(a, 0, &queue, waiting)
	}
	for len(queue) > 0 {
		c := heap.Pop(&queue).(candidate)
		if v.admins[c.subject] == nil {
			v.settle(&admin{id: c.subject, public: c.rec.body.(*wire.Admin).Subject, parent: c.by, from: waiting[c.subject]}, c.depth, &queue, waiting)
		}
	}
}

// settle fixes the rank of a, and brings its revocations and grants to bear on all who come after it.
func (v *evaluation) settle(a *admin, depth int, queue *candidates, waiting map[key.NodeID][]grant) {
	a.rank = len(v.ranks)
	v.ranks = append(v.ranks, a)
	v.admins[a.id] = a
	a.rights = v.standing(a)
	if a.rights.Has(wire.RightRevoke) {
		for _, e := range v.cutsBy[a.id] {
			subject := e.body.(*wire.Revocation).Subject
			if !v.roots[subject] && v.admins[subject] == nil && !v.rejected(a, e) {
				v.remove(subject, cut{rec: e, by: a})
			}
		}
	}
	if !a.rights.Has(wire.RightDelegate) {
		return
	}
	for _, e := range v.grantsBy[a.id] {
		b := e.body.(*wire.Admin)
		subject := b.Subject.NodeID()
		if v.admins[subject] != nil || b.Rights&a.rights == 0 || !v.kept(a.id, e.rec.ID, asAdmin) {
			continue
		}
		waiting[subject] = append(waiting[subject], grant{rec: e, by: a})
		heap.Push(queue, candidate{subject: subject, depth: depth + 1, rec: e, by: a})
	}
}

// standing counts the rights that a has from above, whether it was put out or not: nobody gives more than he has.
func (v *evaluation) standing(a *admin) wire.Rights {
	if a.root {
		return wire.AllRights
	}
	var r wire.Rights
	for _, g := range a.from {
		if g.by.rights.Has(wire.RightDelegate) && v.kept(g.by.id, g.rec.rec.ID, asAdmin) {
			r |= g.rec.body.(*wire.Admin).Rights & g.by.rights
		}
	}
	return r
}

// rejected reports whether someone above a, who was put out, has rejected a's revocation e (spec/21-roster.md#adopt).
func (v *evaluation) rejected(a *admin, e *entry) bool {
	rem := v.removals[a.id]
	if rem == nil || !slices.ContainsFunc(rem.cuts, func(c cut) bool { return c.by != nil }) {
		return false
	}
	for _, r := range v.rejects[e.rec.ID.Prefix()] {
		by := v.admins[r.signerID]
		if r.body.(*wire.Adopt).Subject == a.id && by != nil && by.rank < a.rank && by.rights.Has(wire.RightRevoke) &&
			v.kept(by.id, r.rec.ID, asAdmin) {
			return true
		}
	}
	return false
}

// settleUpward is step 2. All are judged on the same state, so their order does not matter.
func (v *evaluation) settleUpward() (found bool) {
	var cuts []cut
	for _, a := range v.ranks {
		if !a.rights.Has(wire.RightRevoke) {
			continue
		}
		for _, e := range v.cutsBy[a.id] {
			target := v.admins[e.body.(*wire.Revocation).Subject]
			if target != nil && target.rank < a.rank && v.mayRemove(a, target) && !v.rejected(a, e) {
				cuts = append(cuts, cut{rec: e, by: a})
			}
		}
	}
	for _, c := range cuts {
		v.remove(c.body().Subject, c)
	}
	return len(cuts) > 0
}

// mayRemove reports whether a may put out an admin: no root, none of those from whom a has its rank, and none above that
// has put a out.
func (v *evaluation) mayRemove(a, target *admin) bool {
	if target.root {
		return false
	}
	if target.rank > a.rank {
		return true
	}
	for p := a.parent; p != nil; p = p.parent {
		if p == target {
			return false
		}
	}
	rem := v.removals[a.id]
	return rem == nil || !slices.ContainsFunc(rem.cuts, func(c cut) bool { return c.by == target })
}

func (v *evaluation) remove(subject key.NodeID, c cut) {
	rem := v.removals[subject]
	if rem == nil {
		rem = &removal{}
		v.removals[subject] = rem
	}
	rem.cuts = append(rem.cuts, c)
	rem.verdicts = [2]*verdict{}
}

// kept reports whether a record that subject vouched for stands: subject was not put out, or whoever did so adopted it.
func (v *evaluation) kept(subject key.NodeID, id wire.RecordID, p purpose) bool {
	rem := v.removals[subject]
	if rem == nil {
		return true
	}
	if rem.verdicts[p] == nil {
		rem.verdicts[p] = v.judge(subject, rem, p)
	}
	j := rem.verdicts[p]
	return !j.removed || j.wait || j.keep[id.Prefix()]
}

// judge finds who decides over what a removed subject vouched for: the highest in rank of those who put it out, or itself
// if nobody else did. A witness that leaves of its own will takes nobody with it (spec/21-roster.md#adopt).
func (v *evaluation) judge(subject key.NodeID, rem *removal, p purpose) *verdict {
	var decider *cut
	var need uint32
	for i := range rem.cuts {
		c := &rem.cuts[i]
		if p == asWitness && (c.by == nil || c.body().Scope != wire.ScopeAll) {
			continue
		}
		switch {
		case decider == nil, decider.by == nil && c.by != nil, c.by != nil && c.by.rank < decider.by.rank:
			decider, need = c, c.body().Adopts
		case c.by == decider.by:
			need = max(need, c.body().Adopts)
		}
	}
	if decider == nil {
		return &verdict{}
	}
	j := &verdict{removed: true, by: decider.rec.signerID, need: need, wait: need > 0}
	if a := v.adopted[adopter{j.by, subject}]; a != nil {
		j.wait, j.keep = uint32(len(a.recs)) < need, a.keep
	}
	return j
}

// out reports whether subject is put out, whole or as an admin.
func (v *evaluation) out(subject key.NodeID, s wire.Scope) bool {
	rem := v.removals[subject]
	return rem != nil && (s == wire.ScopeAdmin || slices.ContainsFunc(rem.cuts, func(c cut) bool { return c.body().Scope == wire.ScopeAll }))
}

// rights returns what a key may do now.
func (v *evaluation) rights(id key.NodeID) wire.Rights {
	if a := v.admins[id]; a != nil && !v.out(id, wire.ScopeAdmin) {
		return a.rights
	}
	return 0
}

// vouches reports whether id held a right when it signed, as far as a set without a clock can tell, and rec still stands.
func (v *evaluation) vouches(id key.NodeID, right wire.Rights, rec wire.RecordID) bool {
	a := v.admins[id]
	return a != nil && a.rights.Has(right) && v.kept(id, rec, asAdmin)
}

// candidate is a grant that would give its subject a rank.
type candidate struct {
	subject key.NodeID
	depth   int
	rec     *entry
	by      *admin
}

// candidates is a heap, the highest rank first: least depth, earliest grant, lowest id.
type candidates []candidate

func (c candidates) Len() int      { return len(c) }
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(x any)   { *c = append(*c, x.(candidate)) }

func (c candidates) Less(i, j int) bool {
	a, b := c[i], c[j]
	switch {
	case a.depth != b.depth:
		return a.depth < b.depth
	case a.rec.time != b.rec.time:
		return a.rec.time < b.rec.time
	case a.subject != b.subject:
		return bytes.Compare(a.subject[:], b.subject[:]) < 0
	}
	return bytes.Compare(a.rec.rec.ID[:], b.rec.rec.ID[:]) < 0
}

func (c *candidates) Pop() any {
	last := len(*c) - 1
	x := (*c)[last]
	*c = (*c)[:last]
	return x
}
