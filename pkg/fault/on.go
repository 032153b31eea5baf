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

// HERALD_FAULT is point=action@n: the action happens when the process passes the point for the n-th time. The actions are
// kill (SIGKILL) and stop (SIGSTOP: the process freezes until it receives SIGCONT).
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

// Point kills or freezes the process if HERALD_FAULT names this pass of this point.
func Point(name string) {
	if name != point || left.Add(-1) != 0 {
		return
	}
	sig := syscall.SIGKILL
	if action == "stop" {
		sig = syscall.SIGSTOP
	}
	// A signal to the thread itself acts before its next instruction. A signal to the process may act later.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
}
