// Package wireguard is the WireGuard protocol as a pure state machine: handshakes, cookies, keypairs, timers.
//
// An [Engine] stands for one static key, that is one network. Several engines live in one process and share a UDP
// port; [Engine.Owns] tells whose a handshake message is. A [Peer] is another static key and has up to three
// keypairs:
//
//	           we answered an initiation              first packet received on it (NoticeConfirm)
//	(nothing) --------------------------> next -----------------------------------------------.
//	     |                                                                                    v
//	     '-- our initiation was answered --------------------------------------------> current --> previous --> gone
//
// Packets are sent on current alone and received on all three. A keypair is erased when it is 180 s old, when it is
// rotated out, or when its peer is removed.
//
// Use: give messages of types 1 to 3 to [Engine.Handle], call [Engine.Tick] when the time it returned has come, and
// after each call carry out what [Engine.Effects] returns, in order. Transport messages (type 4) never reach the
// engine: the owner finds their keypair by receiver index (effects [KeypairAdded] and [KeypairRemoved] keep that
// table) and calls [Keypair.Open].
//
// Concurrency: an Engine belongs to one goroutine, the control loop. Any goroutine may call the methods of Peer and
// Keypair; what they write is the send counter, the statistics and the timer marks (atomics), and the replay window,
// which has a small mutex of its own (window.go). All else in them is written by the engine alone.
//
// Time: `now` of an engine is what time.Now returned. Workers pass nanoseconds of the same clock, see [Nanos]. Only
// the timestamp inside an initiation reads the wall clock; every timer reads the monotonic one.
//
// Errors are sentinels without detail: they are drop reasons, to be counted, and the network can cause them at will.
//
// The spec is spec/40-wireguard.md. Not here: endpoints and roaming (package path), allowed addresses (route),
// padding and the staging of packets that wait for a session (dataplane).
package wireguard
