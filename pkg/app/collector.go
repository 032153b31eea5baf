package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Most of what a request or a delivery allocates is dead at its end, and what is alive is small: some 40 MB in a worker,
// stacks included. With Go's own rule, to collect whenever the heap has grown by as much as is alive, a busy worker would
// spend a sixth of its time on that. Here the heap grows by a fixed amount first, or by what is alive if that is more.
const (
	growth    = 48 << 20 // bytes allocated between two collections
	leastGOGC = 100
)

// apiMemory is the memory, in bytes, above which the API's collector works harder, whatever the machine has. What requests
// hold is bounded well below (api: maxMemory), but a burst of large bodies right after a quiet time meets a pace that was
// set for little: eight clients with bodies of 200,000 values took 630 MB, and take 270.
const apiMemory = 230 << 20

// boundAPIMemory keeps the API small. A limit that is lower, or that GOMEMLIMIT sets, stays.
func boundAPIMemory() {
	if os.Getenv("GOMEMLIMIT") == "" && debug.SetMemoryLimit(-1) > apiMemory {
		debug.SetMemoryLimit(apiMemory)
	}
}

// paceCollector sets the pace of garbage collection now and after every collection. Where GOGC is set it leaves that alone.
func paceCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	alive := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(alive)
	sum := uint64(1)
	for _, s := range alive {
		sum += s.Value.Uint64()
	}
	debug.SetGCPercent(max(int(100*growth/sum), leastGOGC))
	mark := new([64]byte) // dead at once, so the next collection finds it
	runtime.AddCleanup(mark, func(struct{}) { paceCollector() }, struct{}{})
}
