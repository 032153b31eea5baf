package bulk_test

import (
	"context"
	"testing"
	"time"

	"herald/pkg/bulk"
	"herald/pkg/message"
)

// A runner looks for work once a second, and when it is woken, but never more often than every 20 ms.
func TestLooksForWork(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		r := f.start()
		pass(10*time.Second + time.Millisecond)
		if n := len(f.called("Running")); n != 11 {
			t.Errorf("%d looks in 10 s", n)
		}
		before := len(f.called("Running"))
		r.Wake()
		pass(time.Millisecond)
		if n := len(f.called("Running")) - before; n > 1 {
			t.Errorf("%d looks at one wake", n)
		}
		for range 100 {
			r.Wake()
			pass(time.Millisecond)
		}
		if n := len(f.called("Running")) - before; n < 4 || n > 6 {
			t.Errorf("%d looks in 100 ms of wakes", n)
		}
	})
}

// Looking takes at most a quarter of the time as long as a look is quick, and pauses 100 ms at most.
func TestSlowLooksAreRarer(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]time.Duration{
		10 * time.Millisecond:  40 * time.Millisecond,
		20 * time.Millisecond:  80 * time.Millisecond,
		200 * time.Millisecond: 300 * time.Millisecond,
	} {
		inBubble(t, func(t *testing.T, f *fake) {
			f.on("Running", func(context.Context, int) error { time.Sleep(took); return nil })
			r := f.start(func(d *bulk.RunnerDeps) { d.Timing.Poll = time.Hour })
			for range 1_000 {
				r.Wake()
				pass(time.Millisecond)
			}
			looks := f.called("Running")
			if gap := looks[2].at.Sub(looks[1].at); !near(gap, want, 2*time.Millisecond) {
				t.Errorf("looks of %v every %v, want %v", took, gap, want)
			}
		})
	}
}

func TestAFailedLookIsReportedAndRepeated(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.fails("Running", 3, errDown)
		f.start()
		b := f.accept(f.newChannel(0), f.newLeads(1))
		f.until(time.Minute, "it is fed", func() bool { return f.now(b).FeedSeq == 1 })
		if got := f.reported(); len(got) != 1 || got[0] != "look for bulks" {
			t.Errorf("reported %v", got)
		}
	})
}

// A bulk that another process acquired first is not a failure.
func TestAConflictIsNoFailure(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.fails("Acquire", 1, message.Errorf(message.CodeConflict, "another process runs it"))
		b := f.accept(f.newChannel(0), f.newLeads(1))
		f.start()
		f.until(time.Minute, "it is fed", func() bool { return f.now(b).FeedSeq == 1 })
		if got := f.reported(); len(got) != 0 {
			t.Errorf("reported %v", got)
		}
	})
}

func TestAFailureToAcquireIsReported(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.fails("Acquire", 1, errDown)
		b := f.accept(f.newChannel(0), f.newLeads(1))
		f.start()
		f.until(time.Minute, "it is fed", func() bool { return f.now(b).FeedSeq == 1 })
		if got := f.reported(); len(got) != 1 || got[0] != "run" {
			t.Errorf("reported %v", got)
		}
	})
}

// A paused bulk is not acquired until it is resumed.
func TestPausedBulksAreLeftAlone(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		_, b := oneBulk(f)
		s := f.newService()
		if v, err := s.Pause(t.Context(), b.ID); err != nil || v.Status != bulk.Paused {
			t.Fatalf("%+v, %v", v, err)
		}
		f.until(10*time.Second, "the runner leaves it", func() bool { return f.events("left") == 1 })
		acquired := len(f.called("Acquire"))
		pass(time.Minute)
		if n := len(f.called("Acquire")) - acquired; n != 0 {
			t.Errorf("acquired %d times while it is paused", n)
		}
		f.dropTasks()
		if _, err := s.Resume(t.Context(), b.ID); err != nil {
			t.Fatal(err)
		}
		f.until(time.Second, "its message is enqueued again", func() bool { return f.waiting() == 1 })
		f.finish(b)
	})
}

// A bulk whose lease is being acquired is free in the answers of further looks, and is not started once more.
func TestABulkIsStartedOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("Acquire", func(context.Context, int) error { time.Sleep(500 * time.Millisecond); return nil })
		b := f.accept(f.newChannel(0), f.newLeads(1))
		r := f.start()
		for range 100 {
			r.Wake()
			pass(4 * time.Millisecond)
		}
		if looks, acquired := len(f.called("Running")), len(f.called("Acquire")); looks < 3 || acquired != 1 {
			t.Errorf("acquired %d times in %d looks", acquired, looks)
		}
		f.finish(b)
	})
}

// While bulks of the last look wait, a slot that becomes free causes no further look.
func TestWaitingBulksNeedNoLook(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(0.5) // two slots
		bulks := f.acceptMany(80, c, f.newLeads(10))
		f.start()
		f.untilPlanned(bulks...)
		before := len(f.called("Running"))
		for range 100 {
			pass(100 * time.Millisecond)
			f.deliver(5)
		}
		if n := len(f.called("Running")) - before; n > 12 {
			t.Errorf("%d looks in 10 s", n)
		}
	})
}
