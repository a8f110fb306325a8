// Package member decides who belongs to a network, from signed records alone.
//
// A [Set] holds the records that were accepted; [Set.Roster] computes the effective membership from them. Both are defined
// so that it does not matter in what order, how often or by which way records come: the roster is a function of the set,
// and of nothing else, not of a clock either (spec/21-roster.md).
//
// Two questions are kept apart:
//
//	accepted?   Is the record well formed, and signed by a key that was EVER given the right to sign such a record? The
//	            answer only ever turns from no to yes while records come in, so sets converge whatever the order. A record
//	            that must wait lies in the pen and is tried again (spec/20-records.md#acceptance).
//	effective?  Does it count now, with all revocations that are known? [Set.Roster] answers that anew from the whole
//	            set: first who are admins and who is put out, from the highest rank down, then who is admitted, then names
//	            and addresses.
//
// A revocation thus takes nothing out of the set: what a revoked key signed stays, is passed on, and has no effect.
//
// The constructors ([Genesis], [Set.NewInvite], [Set.Revoke], ...) make sealed records for a node's own identity. They add
// nothing: the caller gives what they return to [Set.Add] and to gossip. They fail with one of this package's errors, whose
// text is for people, when the record would have no effect.
//
// A Set is not safe for concurrent use: the control loop of its network owns it. A [Roster] never changes and may be read by
// any goroutine.
package member
