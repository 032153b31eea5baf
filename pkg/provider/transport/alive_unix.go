//go:build unix

package transport

import (
	"errors"
	"syscall"
	"time"
)

// alive reports whether the connection is open and has no unread bytes. It reads one byte without blocking: EAGAIN means open and
// quiet. A server can still close the connection between this call and the next write; no transport can rule that out.
func (c *persistConn) alive() bool {
	sc, ok := c.counting.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	_ = c.counting.SetReadDeadline(time.Time{}) // the deadline of the last call may have passed
	quiet := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, rerr := syscall.Read(int(fd), b[:])
		quiet = errors.Is(rerr, syscall.EAGAIN)
		return true
	})
	return err == nil && quiet
}
