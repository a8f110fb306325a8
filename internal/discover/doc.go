// Package discover finds the addresses of a network's members without anybody's server: by beacons on the local network
// and by sealed slots in the Mainline DHT (spec/70-discover.md).
//
//	keys, own addresses, map, links       +--------+   Get, Put        (the DHT)
//	------------------------------------> | Engine | ----------------> SendBeacon, Listen  (the LAN)
//	beacons, items, results of puts       +--------+   Found
//
// An [Engine] is for one network, or for one join of a newcomer. It decides who publishes, who reads and when; what it finds
// are hints: addresses that a holder of the key stated, to be tried once, politely, and to be believed when a handshake
// proved them. A healthy node that publishes nothing sends nothing to the DHT.
//
// The engine is pure: not safe for concurrent use, no clock, no I/O. After any call the owner calls Tick, then Effects.
package discover
