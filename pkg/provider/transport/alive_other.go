//go:build !unix

package transport

// alive returns false: this platform has no non-blocking look at a socket, so an idle connection is used only within recentlyUsed.
func (c *persistConn) alive() bool { return false }
