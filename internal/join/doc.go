// Package join brings a newcomer with an invite code into a network: the machines of both sides, the newcomer's [Joiner]
// and the [Introducer] that every member runs (spec/30-join.md).
//
//	Joiner                                        Introducer
//	hello     -- step 1: who I am, my name -->    (silent unless the join key fits)
//	          <-- step 2: draft of the record --  half-open
//	offered
//	accepting -- step 3: signatures, info   -->   owner's Admit
//	          <-- step 4: records, in parts   --  answered; repeats it until the entry ends
//	joined
//
// Apart from that, a member that another does not know can show it that it is one, by one-way frames: [Prove] makes them, the other's
// Introducer gives them to its owner's Learn.
//
// A Joiner runs one attempt for each hint at once, signs the first good offer, and turns to the others when that
// introducer stalls. An Introducer keeps nothing for a message that does not authenticate; what it keeps is capped.
//
// Both are pure: time comes in as an argument, what must be sent or told comes out of Effects, in order. Neither is safe
// for concurrent use: the control loop of package node owns them. Messages are only read during Handle; bytes in effects
// are the owner's. Nothing that comes from the network is an error to the owner: it is dropped, and logged at Debug.
//
// This package does not know who belongs: an Introducer asks its owner by the callbacks in its config, and a Joiner checks
// only that the answer is about the code's network and comes from the introducer it talks to. The owner of a Joiner verifies
// the chain of records before it believes it, and says [Joiner.Reject] when the chain is bad.
package join
