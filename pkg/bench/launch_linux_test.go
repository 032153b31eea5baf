package bench

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A program that the bench starts gets a separate session; a patient one does not preempt other programs.
func TestHowProgramsAreStarted(t *testing.T) {
	var d deployment
	defer d.stop()
	_, without := unix.SchedGetAttr(0, 0) // some sandboxes have no policies
	for _, c := range []struct {
		name   string
		start  func(func())
		policy uint32
	}{
		{"at once", func(start func()) { start() }, unix.SCHED_NORMAL},
		{"patiently", patiently, unix.SCHED_BATCH},
		{"at once after that", func(start func()) { start() }, unix.SCHED_NORMAL},
	} {
		var p *process
		var err error
		c.start(func() { p, err = d.launch("sleep", c.name, nil, "60") })
		if err != nil {
			t.Fatal(err)
		}
		pid := p.cmd.Process.Pid
		session, err := unix.Getsid(pid)
		if err != nil {
			t.Fatal(err)
		}
		if session != pid {
			t.Errorf("%s: process %d is in session %d", c.name, pid, session)
		}
		if attr, err := unix.SchedGetAttr(pid, 0); without == nil && (err != nil || attr.Policy != c.policy) {
			t.Errorf("%s: policy %+v, %v", c.name, attr, err)
		}
	}
	var err error
	patiently(func() { _, err = d.launch("no-such-program", "none", nil) })
	if err == nil {
		t.Error("a program that is not there was started")
	}
}
