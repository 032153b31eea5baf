//go:build !faults

package fault

// Point is where a test may let the process die. It does nothing in this build.
func Point(string) {}
