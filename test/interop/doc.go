// Package interop checks that a stock WireGuard takes Warren for its own kind.
//
// The other side is wireguard-go's device, run in the same process over a channel in place of a TUN and over UDP on the
// loopback. Our side is the engine of internal/wireguard and a minimal data plane (driver_test.go) whose clock the
// tests move forward at will; the stock side keeps the real one, so that some tests wait for its timers, 10 s at most.
package interop
