package bulk_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
)

// order returns the bulks in the order in which they were acquired.
func (f *fake) order() (ids []uuid.UUID) {
	for _, c := range f.called("Acquire") {
		if id := c.args[0].(bulk.Lease).BulkID; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

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

// A paused bulk is left alone until it is resumed.
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

// Bulks of a channel start in the order of their waits. HIGH adds a minute to the wait, LOW subtracts one, and a bulk that had no
// slot yet adds one.
func TestBulksTakeTurnsInOrder(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0.5), f.newLeads(30) // a window of 20 tasks: two slots
		start := time.Now()
		priority := func(p message.Priority) func(r *bulk.Request) {
			return func(r *bulk.Request) { r.Priority = p }
		}
		names := map[uuid.UUID]string{}
		add := func(name string, ago time.Duration, p message.Priority, hadTurn bool) {
			b := f.accept(c, leads, priority(p))
			f.mu.Lock()
			defer f.mu.Unlock()
			row := f.bulks[b.ID]
			row.CreatedAt = start.Add(-ago)
			if row.Planned = true; hadTurn {
				row.CreatedAt, row.turnAt = start.Add(-time.Hour), start.Add(-ago)
			}
			for _, id := range leads {
				f.addRow(row, fakeMessage{PlannedRow: bulk.PlannedRow{ID: uuid.New(), LeadID: id, Status: message.Pending}})
			}
			row.Total = 30
			names[b.ID] = name
		}
		add("low, new", 10*time.Second, message.Low, false)                  // counts as 10 s ago
		add("normal, turn 59 s ago", 59*time.Second, message.Normal, true)   // 59 s
		add("high, turn 3 s ago", 3*time.Second, message.High, true)         // 63 s
		add("normal, turn 100 s ago", 100*time.Second, message.Normal, true) // 100 s
		add("normal, new", 50*time.Second, message.Normal, false)            // 110 s
		add("high, new", 0, message.High, false)                             // 120 s
		add("normal, turn 121 s ago", 121*time.Second, message.Normal, true) // 121 s
		add("low, turn 5 min ago", 5*time.Minute, message.Low, true)         // 240 s
		f.start()
		f.until(time.Hour, "all have been run", func() bool {
			f.deliver(100)
			return len(f.order()) == len(names)
		})
		var got []string
		for _, id := range f.order() {
			got = append(got, names[id])
		}
		want := []string{"low, turn 5 min ago", "normal, turn 121 s ago", "high, new", "normal, new", "normal, turn 100 s ago", "high, turn 3 s ago", "normal, turn 59 s ago", "low, new"}
		for i := 0; i < len(want)-1; i += 2 { // each pair gets the two slots at once
			slices.Sort(got[i : i+2])
			slices.Sort(want[i : i+2])
		}
		if !slices.Equal(got, want) {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
	})
}

// A channel's window follows its rate, 1.5 seconds of it and at least 20; without a rate it follows the workers, 2,000 each
// and 20,000 at most. It is shared by the bulks of the channel, or, without a rate, by all bulks.
func TestWindow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		rate    float64
		workers int
		bulks   int
		want    int // tasks in the queue
		each    int // tasks of one bulk at most
	}{
		{"one bulk without a rate", 0, 1, 1, 2_000, 2_000},
		{"two workers", 0, 2, 1, 4_000, 4_000},
		{"many workers", 0, 100, 1, 20_000, 20_000},
		{"no worker is known", 0, 0, 1, 2_000, 2_000},
		{"two bulks without a rate", 0, 1, 2, 2_000, 2_000},
		{"a rate", 100, 1, 1, 150, 150},
		{"a rate with a fraction", 99.1, 1, 1, 149, 149},
		{"a low rate", 0.5, 1, 1, 20, 20},
		{"three bulks with a rate", 40, 1, 3, 60, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				f.workers = c.workers
				ch, leads := f.newChannel(c.rate), f.newLeads(c.want+500)
				for range c.bulks {
					f.accept(ch, leads)
				}
				f.start()
				pass(30 * time.Second)
				if n := f.waiting(); n > c.want || n < c.want*3/4 {
					t.Errorf("%d tasks are in the queue, the window is %d", n, c.want)
				}
				if c.bulks == 1 && c.want <= 2_000 && f.waiting() != c.want {
					t.Errorf("one bulk fills %d of %d", f.waiting(), c.want)
				}
			})
		})
	}
}

// Each bulk gets its share of a channel's window, and no less than ten tasks.
func TestFaultTheWindowIsSharedEvenly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate        float64
		bulks       int
		least, most int // tasks of a bulk in the queue
		running     int // bulks with tasks
	}{
		{80, 3, 30, 40, 3},  // 120 tasks, 40 each
		{20, 10, 7, 10, 3},  // 30 tasks: three slots
		{0.1, 10, 7, 10, 2}, // 20 tasks: two slots
	} {
		inBubble(t, func(t *testing.T, f *fake) {
			ch, leads := f.newChannel(c.rate), f.newLeads(200)
			for range c.bulks {
				b := f.accept(ch, leads)
				f.bulks[b.ID].Planned = false
			}
			f.start(func(d *bulk.RunnerDeps) { d.Timing.TimeSlice = time.Hour })
			for range 20 { // the first may have filled the window before the others came
				pass(2 * time.Second)
				f.deliver(5)
			}
			pass(5 * time.Second)
			queued := f.queued()
			if len(queued) != c.running {
				t.Errorf("rate %v: %d bulks have tasks, want %d", c.rate, len(queued), c.running)
			}
			for _, n := range queued {
				if n < c.least || n > c.most {
					t.Errorf("rate %v: a bulk has %d tasks, want %d to %d", c.rate, n, c.least, c.most)
				}
			}
		})
	}
}

// The bulks of a channel never have more tasks in the queue than its window, also while they come and go.
func TestTheWindowIsNeverExceeded(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		ch, leads := f.newChannel(40), f.newLeads(150) // 60 tasks, 6 slots
		var bulks []*bulk.Bulk
		f.start()
		most := 0
		for i := range 400 {
			if i%20 == 0 {
				bulks = append(bulks, f.accept(ch, leads))
			}
			f.deliver(13)
			pass(50 * time.Millisecond)
			most = max(most, f.waiting())
		}
		if most > 60 || most < 50 {
			t.Errorf("%d tasks at most, the window is 60", most)
		}
		f.finish(bulks...)
	})
}

// A bulk gives its slot up after its time slice if other bulks wait. Otherwise it keeps the slot.
func TestATurnEndsForOthers(t *testing.T) {
	t.Parallel()
	for others, want := range map[int]bool{0: false, 3: true} {
		inBubble(t, func(t *testing.T, f *fake) {
			c, leads := f.newChannel(0.5), f.newLeads(1_000) // two slots
			var bulks []*bulk.Bulk
			for range 1 + others {
				bulks = append(bulks, f.accept(c, leads))
			}
			f.start()
			for range 100 {
				pass(100 * time.Millisecond)
				f.deliver(20)
			}
			fed := 0
			for _, b := range bulks {
				if f.now(b).FeedSeq > 0 {
					fed++
				}
			}
			if fed != len(bulks) {
				t.Errorf("%d of %d bulks had a turn in 10 s", fed, len(bulks))
			}
			if released := len(f.called("Release")) > 0; released != want {
				t.Errorf("%d others: a bulk gave its lease up: %v", others, released)
			}
		})
	}
}

// Within its time slice a bulk keeps its slot although others wait.
func TestATurnLastsItsTimeSlice(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0.5), f.newLeads(1_000)
		for range 4 {
			f.accept(c, leads)
		}
		f.start(func(d *bulk.RunnerDeps) { d.Timing.TimeSlice = time.Minute })
		drain := func(n int) {
			for range n {
				pass(100 * time.Millisecond)
				f.deliver(2)
			}
		}
		withTurn := func() (n int) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, b := range f.bulks {
				if b.FeedSeq > 0 {
					n++
				}
			}
			return n
		}
		drain(500)
		if had := withTurn(); had != 2 {
			t.Errorf("%d bulks had a turn within 50 s, the channel has two slots", had)
		}
		drain(200)
		if had := withTurn(); had != 4 {
			t.Errorf("%d bulks had a turn within 70 s", had)
		}
	})
}

// A process plans four bulks without a slot at a time.
func TestFourBulksArePlannedWithoutASlot(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0), f.newLeads(1)
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		var bulks []*bulk.Bulk
		for range 10 {
			bulks = append(bulks, f.accept(c, leads))
		}
		blocked := f.blockResolve(0)
		f.start()
		pass(5 * time.Second)
		if blocked.most != 4 {
			t.Errorf("%d bulks are planned at a time", blocked.most)
		}
		close(blocked.release)
		f.until(time.Minute, "all are planned", func() bool {
			return !slices.ContainsFunc(bulks, func(b *bulk.Bulk) bool { return !f.now(b).Planned })
		})
	})
}

// A process reconciles sixteen bulks without a slot at a time.
func TestSixteenBulksAreReconciledAtATime(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0), f.newLeads(1)
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		for range 40 {
			b := f.accept(c, leads)
			row := f.bulks[b.ID]
			f.addRow(row, fakeMessage{PlannedRow: bulk.PlannedRow{ID: uuid.New(), Status: message.Sending}, claimed: time.Now().Add(time.Hour)})
			row.Planned, row.Total, row.FeedSeq = true, 1, 1
		}
		under, most := 0, 0
		f.on("Walk", func(context.Context, int) error {
			f.mu.Lock()
			under++
			most = max(most, under)
			f.mu.Unlock()
			time.Sleep(time.Second)
			f.mu.Lock()
			under--
			f.mu.Unlock()
			return nil
		})
		f.start()
		pass(20 * time.Second)
		if most != 16 {
			t.Errorf("%d bulks are reconciled at a time", most)
		}
		if n := len(f.order()); n != 40 {
			t.Errorf("%d of 40 bulks were reconciled", n)
		}
	})
}

// A channel has at most 64 slots in a process. Bulks that one look omits are found by the next.
func TestManyBulksOfOneChannel(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0), f.newLeads(1)
		var bulks []*bulk.Bulk
		for range 200 {
			bulks = append(bulks, f.accept(c, leads))
		}
		blocked := f.blockResolve(0)
		f.start(func(d *bulk.RunnerDeps) { d.Timing.Poll, d.Timing.TimeSlice = time.Hour, time.Hour })
		pass(time.Second)
		f.runner.Wake() // one look shows 64 bulks of a channel
		pass(time.Second)
		if blocked.most != 64+4 {
			t.Errorf("%d bulks are planned at a time, want one for each of 64 slots and four without", blocked.most)
		}
		close(blocked.release)
		f.until(time.Minute, "all are fed without a second poll", func() bool {
			f.deliver(1_000)
			return !slices.ContainsFunc(bulks, func(b *bulk.Bulk) bool { return f.now(b).FeedSeq == 0 })
		})
	})
}

// A channel that cannot be read keeps its last window. A deleted channel is fed like any other.
func TestAChannelThatCannotBeRead(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(40) // 60 tasks
		b := f.accept(c, f.newLeads(200))
		f.start()
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 60 })
		f.on("Get", func(context.Context, int) error { return errDown })
		for range 10 {
			pass(time.Second)
			f.deliver(20)
		}
		pass(time.Second)
		if n := f.waiting(); n > 60 {
			t.Errorf("%d tasks", n)
		}
		if got := f.reported(); len(got) != 1 || got[0] != "read the channel" {
			t.Errorf("reported %v", got)
		}
		f.on("Get", nil)
		f.mu.Lock()
		delete(f.channels, c.Key)
		f.mu.Unlock()
		f.finish(b)
	})
}

func TestABulkOfAChannelThatCannotBeReadWaits(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("Get", func(context.Context, int) error { return errDown })
		b := f.accept(f.newChannel(0), f.newLeads(10))
		f.start()
		pass(10 * time.Second)
		if f.waiting() != 0 {
			t.Errorf("%d tasks of a channel that was never read", f.waiting())
		}
		f.on("Get", nil)
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

// The tasks of a run that ended do not count against the window of its channel any more: the next run counts them itself.
func TestARunThatEndsLeavesTheWindow(t *testing.T) {
	t.Parallel()
	inBubble(t, func(_ *testing.T, f *fake) {
		c := f.newChannel(40) // a window of 60 tasks
		b := f.accept(c, f.newLeads(200))
		f.start()
		for range 3 {
			f.until(time.Minute, "the window is full", func() bool { return f.waiting() >= 60 })
			f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
			f.until(10*time.Second, "it is parked", func() bool { return f.leaseOf(b) == uuid.Nil })
			f.changed(c, func(c *channel.Channel) { c.State = channel.Active })
			f.until(10*time.Second, "it runs again", func() bool { return f.leaseOf(b) != uuid.Nil })
			f.deliver(20)
		}
		f.until(time.Minute, "the window is full", func() bool { return f.waiting() == 60 })
		f.finish(b)
	})
}

// A bulk that is planned without a slot counts as waiting for one, so others yield and it is fed before its plan is complete.
func TestABulkIsFedWhileItIsPlannedWithoutASlot(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0.5), f.newLeads(400) // two slots
		large := f.acceptMany(2, c, leads)
		f.start()
		f.untilPlanned(large...)
		pass(5 * time.Second)
		first := len(f.called("Resolve"))
		f.on("Resolve", func(ctx context.Context, n int) error {
			if n > first+1 {
				select {
				case <-time.After(time.Hour):
				case <-ctx.Done():
				}
			}
			return ctx.Err()
		})
		third := f.accept(c, f.newLeads(600))
		for range 100 {
			pass(100 * time.Millisecond)
			f.deliver(2)
		}
		if got := f.now(third); got.Planned || got.FeedSeq == 0 {
			t.Errorf("planned %v, %d messages fed", got.Planned, got.FeedSeq)
		}
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
