package render

import "golang.org/x/sys/unix"

// threadCPU returns the CPU time of this thread in milliseconds.
func threadCPU() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0
	}
	return (unix.TimevalToNsec(u.Utime) + unix.TimevalToNsec(u.Stime)) / 1e6
}
