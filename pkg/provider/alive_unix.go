//go:build unix

package provider

import (
	"errors"
	"syscall"
	"time"
)

// alive says whether the other end has neither closed the connection nor sent something that nobody asked for. A call is
// written at once afterwards, so what happens in between is what no transport can rule out.
func (l *line) alive() bool {
	sc, ok := l.wire.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	_ = l.wire.SetReadDeadline(time.Time{}) // that of the last call may have passed
	quiet := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, rerr := syscall.Read(int(fd), b[:])
		quiet = errors.Is(rerr, syscall.EAGAIN)
		return true
	})
	return err == nil && quiet
}
