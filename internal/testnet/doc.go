// Package testnet is an internet inside one process, for tests: hosts with addresses and UDP sockets, links with delay, loss
// and limits, and tunnel devices with a small host behind them.
//
//	h1 := net.Host("a", addr) --- Link{Delay, Jitter, Loss, Duplicate, Reorder, MTU, Rate} --- h2 := net.Host("b", addr)
//	   |                                                                                          |
//	h1.Listen(port) *Socket                                                                    h2.Listen(port) *Socket
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
// All types are safe for concurrent use. There is no NAT and no LAN broadcast yet: every address reaches every host.
package testnet
