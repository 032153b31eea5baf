//go:build !unix

package bench

import "syscall"

// ownSession does nothing on this system.
func ownSession() *syscall.SysProcAttr { return nil }
