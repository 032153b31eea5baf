//go:build !unix

package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// Freeze skips the test: this system cannot stop a process's execution.
func Freeze(t testing.TB, _ *os.Process) {
	t.Helper()
	t.Skip("a process cannot be frozen on this system")
}

// Thaw does nothing.
func Thaw(*os.Process) {}

// account is the user as which PostgreSQL's programs run: always the test's own user here.
type account struct{}

func postgresAccount(testing.TB, string) *account { return nil }

func runAs(*exec.Cmd, *account) {}
