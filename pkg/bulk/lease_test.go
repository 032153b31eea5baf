package bulk_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
)

// oneBulk is a runner with a bulk whose one message stays in the queue, so that the bulk keeps its lease.
func oneBulk(f *fake, change ...func(d *bulk.RunnerDeps)) (*bulk.Runner, *bulk.Bulk) {
	f.t.Helper()
	b := f.accept(f.newChannel(0), f.newLeads(1))
	r := f.start(change...)
	f.until(time.Minute, "it is fed", func() bool { return f.waiting() == 1 })
	return r, b
}

// A lease is renewed for the whole process every third of its length.
func TestLeasesAreRenewed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		_, b := oneBulk(f)
		token := f.leaseOf(b)
		pass(time.Minute)
		renewals := f.called("Renew")
		if n := len(renewals); n < 11 || n > 12 {
			t.Errorf("renewed %d times in a minute", n)
		}
		for _, c := range renewals {
			if c.args[0] != token || c.args[1] != 15*time.Second {
				t.Errorf("renewed %v for %v", c.args[0], c.args[1])
			}
		}
		if a := f.called("Acquire"); len(a) != 1 || a[0].args[1] != 15*time.Second || a[0].args[0] != (bulk.Lease{BulkID: b.ID, Token: token}) {
			t.Errorf("acquired %+v", a)
		}
	})
}

func TestNoLeaseNoRenewal(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.start()
		pass(time.Minute)
		if n := len(f.called("Renew")); n != 0 {
			t.Errorf("renewed %d times without a bulk", n)
		}
	})
}

// While renewals fail, or are not answered, the runner leaves its bulk when the lease ends, not earlier.
func TestFaultALeaseEndsWithoutRenewal(t *testing.T) {
	t.Parallel()
	for name, renew := range map[string]func(ctx context.Context, n int) error{
		"error": func(context.Context, int) error { return errDown },
		"no answer": func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				f.on("Renew", renew)
				_, _ = oneBulk(f, func(d *bulk.RunnerDeps) { d.Timing.Poll = time.Hour })
				began := f.called("Acquire")[0].at
				f.until(time.Minute, "it leaves its bulk", func() bool { return f.events("left") == 1 })
				if took := time.Since(began); took < 15*time.Second || took > 16*time.Second {
					t.Errorf("it left after %v, the lease is 15 s", took)
				}
			})
		})
	}
}

// A lease counts from the question: an answer that is late by half a lease does not make it longer.
func TestFaultALeaseCountsFromItsQuestion(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("Acquire", func(context.Context, int) error { time.Sleep(7 * time.Second); return nil })
		f.on("Renew", func(context.Context, int) error { return errDown })
		b := f.accept(f.newChannel(0), f.newLeads(1))
		f.start(func(d *bulk.RunnerDeps) { d.Timing.Poll = time.Hour })
		f.until(time.Minute, "it leaves its bulk", func() bool { return f.events("left") == 1 })
		if took := time.Since(f.called("Acquire")[0].at); took < 15*time.Second || took > 16*time.Second {
			t.Errorf("it left %v after it asked for the lease", took)
		}
		_ = b
	})
}

func TestARenewalCountsFromItsQuestion(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("Renew", func(_ context.Context, n int) error {
			if n > 1 {
				return errDown
			}
			time.Sleep(6 * time.Second)
			return nil
		})
		_, _ = oneBulk(f, func(d *bulk.RunnerDeps) { d.Timing.Poll = time.Hour })
		f.until(time.Minute, "it leaves its bulk", func() bool { return f.events("left") == 1 })
		if took := time.Since(f.called("Renew")[0].at); took < 15*time.Second || took > 16*time.Second {
			t.Errorf("it left %v after the question of the last renewal", took)
		}
	})
}

// A renewal, or a look, that does not name a bulk says that another process has it, or that it was paused.
func TestALostLeaseEndsTheRun(t *testing.T) {
	t.Parallel()
	for name, timing := range map[string]func(d *bulk.RunnerDeps){
		"seen by the renewal": func(d *bulk.RunnerDeps) { d.Timing.Poll = time.Hour },
		"seen by the look":    func(d *bulk.RunnerDeps) { d.Timing.Lease = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				_, b := oneBulk(f, timing)
				f.mu.Lock()
				f.bulks[b.ID].token = uuid.New() // another process
				f.mu.Unlock()
				f.until(10*time.Second, "it leaves its bulk", func() bool { return f.events("left") == 1 })
				before := len(f.called("Follow"))
				pass(time.Minute)
				if n := len(f.called("Follow")) - before; n != 0 || len(f.called("Release")) != 0 || len(f.reported()) != 0 {
					t.Errorf("%d reads after that, %d releases, failures %v", n, len(f.called("Release")), f.reported())
				}
			})
		})
	}
}

// A lease that was granted during a renewal or a look is not in its answer, and not lost.
func TestANewLeaseIsNotLostToAnOldQuestion(t *testing.T) {
	t.Parallel()
	for _, port := range []string{"Renew", "Running"} {
		t.Run(port, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				r, _ := oneBulk(f)
				f.on("Acquire", func(context.Context, int) error { time.Sleep(300 * time.Millisecond); return nil })
				f.answersLate(port, 900*time.Millisecond)
				asked := len(f.called(port))
				f.until(time.Minute, "a question is under way", func() bool { return len(f.called(port)) > asked })
				if port == "Running" {
					pass(time.Second) // it is answered
				}
				late := f.accept(f.newChannel(0), f.newLeads(1))
				for range 200 { // the next question is asked while the lease is being acquired
					r.Wake()
					pass(5 * time.Millisecond)
				}
				f.until(time.Minute, "it is fed", func() bool { return f.now(late).FeedSeq == 1 })
				pass(time.Minute)
				if f.events("left") != 0 {
					t.Error("a lease was given up")
				}
			})
		})
	}
}

// Stop releases every lease, so that another process can continue at once.
func TestStopReleasesEveryLease(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		r, b := oneBulk(f)
		token := f.leaseOf(b)
		r.Stop()
		if all := f.called("ReleaseAll"); len(all) != 1 || all[0].args[0] != token || f.leaseOf(b) != uuid.Nil {
			t.Errorf("released %+v, lease %v", all, f.leaseOf(b))
		}
		if len(f.reported()) != 0 || f.events("left") != 0 {
			t.Errorf("failures %v, left %d", f.reported(), f.events("left"))
		}
		before := f.total
		pass(time.Minute)
		if n := f.total - before; n != 0 {
			t.Errorf("%d calls after the stop", n)
		}
	})
}

func TestStopOfARunnerThatNeverStarted(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		bulk.NewRunner(bulk.RunnerDeps{Leases: f}).Stop()
		if f.total != 0 {
			t.Errorf("%d calls", f.total)
		}
	})
}

func TestAFailureToReleaseIsReported(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("ReleaseAll", func(context.Context, int) error { return errDown })
		r, _ := oneBulk(f)
		r.Stop()
		if got := f.reported(); len(got) != 1 || got[0] != "release" {
			t.Errorf("reported %v", got)
		}
	})
}
