//go:build unix

package bench

import "syscall"

// ownSession starts a program in a new session. Linux groups processes by session (kernel.sched_autogroup_enabled), so the
// programs share the processors as services and containers do. In one session they would share them by thread, and the
// worker's many threads would leave the API little. A Ctrl-C at the terminal reaches only the bench, which stops its programs
// in order.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
