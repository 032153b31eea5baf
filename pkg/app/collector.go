package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Almost all memory that a request or a delivery allocates is garbage at its end, and the live heap is small: about 40 MB in
// a worker, stacks included. With GOGC=100 the collector would run each time the heap has grown by the size of the live
// heap, which took a sixth of a busy worker's processor time. So the heap grows by a fixed amount first, or by the size of
// the live heap if that is larger. A constant GOGC cannot express that: the percentage depends on the live heap.
const (
	growth  = 48 << 20 // bytes allocated between two collections, at least
	minGOGC = 100
)

// apiMemory is the API's memory limit in bytes, independent of the machine. Requests hold much less (api: maxMemory). But
// after a quiet time the collector's pace suits a small heap, and a burst of large bodies outruns it: eight clients with
// bodies of 200,000 values took 630 MB without the limit and take 270 MB with it.
const apiMemory = 230 << 20

// boundAPIMemory applies apiMemory. A lower limit stays, and GOMEMLIMIT takes precedence.
func boundAPIMemory() {
	if os.Getenv("GOMEMLIMIT") == "" && debug.SetMemoryLimit(-1) > apiMemory {
		debug.SetMemoryLimit(apiMemory)
	}
}

// paceCollector sets the pace of garbage collection, now and after each collection. GOGC takes precedence.
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
	debug.SetGCPercent(max(int(100*growth/sum), minGOGC))
	mark := new([64]byte) // garbage at once, so the next collection runs the cleanup
	runtime.AddCleanup(mark, func(struct{}) { paceCollector() }, struct{}{})
}
