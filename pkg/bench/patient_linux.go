package bench

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// patiently starts a program that, when it has something to do, waits until a processor is free or its turn has come, and
// interrupts nobody (SCHED_BATCH). Where that is not allowed it is started as any other.
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
