package bench

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// patiently starts a program with the policy SCHED_BATCH: it does not preempt other programs when it wakes up. Without the
// permission for that, the program runs with the usual policy.
func patiently(start func()) {
	started := make(chan struct{})
	go func() {
		defer close(started)
		runtime.LockOSThread() // a program inherits from the thread that starts it, which ends with this goroutine
		if attr, err := unix.SchedGetAttr(0, 0); err == nil {
			attr.Policy = unix.SCHED_BATCH
			_ = unix.SchedSetAttr(0, attr, 0)
		}
		start()
	}()
	<-started
}
