// Package testnet is an internet inside one process, for tests: hosts with addresses and UDP sockets, links with delay, loss
// and limits, NATs of every kind, and tunnel devices with a small host behind them.
//
//	h1 := net.Host("a", addr) --- Link{Delay, Jitter, Loss, Duplicate, Reorder, MTU, Rate} --- h2 := net.Host("b", addr)
//	   |                                                                                          |
//	h1.Listen(port) *Socket                                                                    h2.Listen(port) *Socket
//
//	net.NAT(PortRestricted, public) --- h3 := nat.Host("c", private)
//
//	program under test --Write--> TUN --> Receive, Ping, answers to echo   (the host behind the tunnel)
//	                   <--Read---     <-- Inject
//
// It is made for testing/synctest: make the Net inside the bubble. Its clock is package time, so in a bubble it is virtual;
// whoever waits (ReadFrom, Read, Receive, Ping) waits on channels, so the bubble's clock moves on when all wait. It starts no
// goroutine of its own: one timer delivers what is under way, in order of arrival, and Close stops it.
//
// A run is repeatable: each direction of each link draws from its own generator, seeded by the seed of the Net and the names
// of the two hosts, so what happens to the n-th packet of a link does not depend on the others.
//
// A packet gets its mapping when it is sent, and passes a filter when it arrives. Links are between hosts, whatever NATs stand
// between them.
//
// All types are safe for concurrent use. There is no LAN broadcast yet.
package testnet
