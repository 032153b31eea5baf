//go:build !linux

package bench

// patiently starts a program as any other here.
func patiently(start func()) { start() }
