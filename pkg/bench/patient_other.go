//go:build !linux

package bench

// patiently starts a program with the usual scheduling policy.
func patiently(start func()) { start() }
