// Package check has what the clients in Go need.
package check

import (
	"fmt"
	"os"
	"time"
)

// URL is the address of the Herald that the clients call.
func URL() string { return os.Getenv("HERALD_URL") }

// Key is the API key that the clients send.
func Key() string { return os.Getenv("HERALD_API_KEY") }

// That ends the program with an error that shows what was received, unless a condition holds.
func That(condition bool, received any) {
	if !condition {
		panic(fmt.Sprintf("unexpected: %+v", received))
	}
}

// Must returns a value, and ends the program on an error.
func Must[T any](v T, err error) T {
	That(err == nil, err)
	return v
}

// Until calls read until its result is done, for at most a minute.
func Until[T any](read func() T, done func(T) bool) T {
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		v := read()
		if done(v) {
			return v
		}
		That(time.Now().Before(end), v)
	}
}
