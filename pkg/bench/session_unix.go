//go:build unix

package bench

import "syscall"

// ownSession puts a program into a session of its own. Programs that a service manager or a container runtime starts share the
// processors by program, and so do those of different sessions where the kernel groups by session (Linux:
// kernel.sched_autogroup_enabled). In one session they share them by thread, and the worker's many leave the API few turns.
// A Ctrl-C at the terminal reaches the bench alone, which stops its programs in order.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
