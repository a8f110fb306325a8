package host

import "golang.org/x/sys/cpu"

// FastAES reports whether this CPU has instructions for AES and GCM: without them ChaCha20-Poly1305 is faster, and the only
// one of the two that runs in constant time.
func FastAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
}
