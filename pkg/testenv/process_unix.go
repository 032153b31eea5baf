//go:build unix

package testenv

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"testing"
)

// Freeze stops a process's execution until Thaw. Its connections stay open.
func Freeze(_ testing.TB, p *os.Process) { _ = p.Signal(syscall.SIGSTOP) }

// Thaw continues a process that is frozen.
func Thaw(p *os.Process) { _ = p.Signal(syscall.SIGCONT) }

// account is the user as which PostgreSQL's programs run; nil is the test's own user.
type account = syscall.Credential

// postgresAccount returns the user postgres where the test runs as root, because PostgreSQL refuses to, and gives it
// the directory.
func postgresAccount(t testing.TB, dir string) *account {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		absent(t, "the user postgres", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return &account{Uid: uint32(uid), Gid: uint32(gid)}
}

func runAs(cmd *exec.Cmd, as *account) { cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as} }
