package host

// Limits says what this system cannot do yet, one sentence each, for the log at start and for status.
func Limits() []string { return nil }
