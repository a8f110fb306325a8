// Package warren is the root of the Warren module: a peer-to-peer VPN in one binary, without a server and without accounts.
//
// The program is cmd/warren; everything it is made of is under internal, and docs/ARCHITECTURE.md shows how the parts fit.
// The public API for embedding a node in another Go program comes here later; until then this package exports nothing and
// is home to the test of the tree's own rules (arch_test.go).
package warren
