//go:build !windows

package main

// understandANSI does nothing where terminals obey escape sequences anyway.
func understandANSI() (undo func()) { return func() {} }
