//go:build !linux

package render

// threadCPU returns 0: CPU time of a thread is measured on Linux only.
func threadCPU() int64 { return 0 }
