// Package api is the daemon's local interface: HTTP and JSON over a unix socket in the state directory.
//
// It holds the values that both sides use, the [Backend] that the daemon implements, the [Server] that guards and serves
// it, and the [Client] that the command line uses. Any local user may call what only reads; what changes something, or
// answers with a secret, is for root, the daemon's own user and the members of one unix group (spec/60-api.md#access).
//
// A Server starts nothing until Run, and Run returns when all it started is gone. A Client is safe for concurrent use.
// Errors that a user should see are [*Error]: a stable code, what happened and why, and what to do next.
// The JSON fields are spec/60-api.md: they are only ever added to. The package knows nothing of networks, records or
// sessions, and checks of a request only its form.
package api

// SocketName is the name of the socket in the state directory.
const SocketName = "warren.sock"

// DefaultGroup is the unix group whose members may make changing calls.
const DefaultGroup = "warren"
