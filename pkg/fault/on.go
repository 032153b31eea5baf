//go:build faults

package fault

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// HERALD_FAULT says what happens where: point=action@n, the n-th time that the process passes the point. The actions
// are kill (at once, as by kill -9) and stop (the process freezes until somebody continues it).
const variable = "HERALD_FAULT"

var (
	point, action string
	left          atomic.Int64
)

func init() {
	var rest, n string
	point, rest, _ = strings.Cut(os.Getenv(variable), "=")
	action, n, _ = strings.Cut(rest, "@")
	times, err := strconv.ParseInt(n, 10, 64)
	if point != "" && (err != nil || (action != "kill" && action != "stop")) {
		panic(variable + " is not like delivery.claimed=kill@3")
	}
	left.Store(times)
}

// Point lets the process die or freeze if this is the moment that HERALD_FAULT names.
func Point(name string) {
	if name != point || left.Add(-1) != 0 {
		return
	}
	sig := syscall.SIGKILL
	if action == "stop" {
		sig = syscall.SIGSTOP
	}
	// Sent to the thread itself, the signal acts before the next instruction; sent to the process, some later.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
}
