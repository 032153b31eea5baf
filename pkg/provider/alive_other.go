//go:build !unix

package provider

// alive cannot be told here, so that every call has a connection of its own.
func (l *line) alive() bool { return false }
