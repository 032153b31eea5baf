package bulk_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/message"
)

var errDown = errors.New("the server does not answer")

// pages returns what a bulk's pages were written with.
func (f *fake) pages() (out []bulk.PlanPage) {
	for _, c := range f.called("AddPage") {
		out = append(out, c.args[0].(bulk.PlanPage))
	}
	return out
}

func (f *fake) planned(b *bulk.Bulk) func() bool {
	return func() bool { return f.now(b).Planned }
}

// The first page is small so that the first messages leave soon; each page starts where the one before ended.
func TestPlanGoesPageByPage(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := append(f.newLeads(2_600), uuid.New(), uuid.New())
		b := f.accept(f.newChannel(0), leads)
		f.start()
		f.until(time.Minute, "it is planned", f.planned(b))
		var limits, cursors []string
		for _, c := range f.called("Resolve") {
			limits, cursors = append(limits, fmt.Sprint(c.args[3])), append(cursors, fmt.Sprint(c.args[2]))
		}
		if got := strings.Join(limits, " "); got != "500 1000 1000 1000" {
			t.Errorf("pages of %s", got)
		}
		if got := strings.Join(cursors, " "); got != " 500 1500 2500" {
			t.Errorf("pages from %q", got)
		}
		token := f.leaseOf(b)
		for i, p := range f.pages() {
			want := bulk.PlanPage{
				Base: []int64{0, 500, 1_500, 2_500}[i], Cursor: []string{"500", "1500", "2500", ""}[i], NotFound: []int64{0, 0, 0, 2}[i], Done: i == 3,
				Lease: bulk.Lease{BulkID: b.ID, Token: token},
			}
			if p.Base != want.Base || p.Cursor != want.Cursor || p.NotFound != want.NotFound || p.Done != want.Done || p.Lease != want.Lease || p.Bulk.ID != b.ID {
				t.Errorf("page %d: base %d, cursor %q, %d not found, done %v, %+v", i, p.Base, p.Cursor, p.NotFound, p.Done, p.Lease)
			}
			for _, r := range p.Rows {
				if !r.Dedupe || !r.FirstSeen {
					t.Fatalf("a first address of page %d: dedupe %v, first seen %v", i, r.Dedupe, r.FirstSeen)
				}
			}
		}
		if total := f.now(b).Total; total != 2_600 || f.now(b).NotFound != 2 {
			t.Errorf("%d messages, %d ids not found", total, f.now(b).NotFound)
		}
		if f.events("planned") != 1 {
			t.Errorf("%d events", f.events("planned"))
		}
		if c := f.called("AtLeast"); len(c) == 0 || c[0].args[1] != int64(7) {
			t.Errorf("the channel was read as %+v", c)
		}
	})
}

// An address that an earlier page has is not first seen, whichever process planned that page: otherwise the unique index would
// refuse the page for ever.
func TestPlanOfAnotherProcessGoesOnWithASharedAddress(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := f.newLeads(1_200)
		shared := f.leads[leads[0]].Email
		for _, i := range []int{10, 700, 1_100} { // on the first, the second, and again on the second page
			l := f.leads[leads[i]]
			l.Email = strings.ToUpper(shared[:1]) + shared[1:]
			f.leads[leads[i]] = l
		}
		b := f.accept(f.newChannel(0), leads)
		f.on("Resolve", func(_ context.Context, n int) error {
			if n > 1 {
				return errDown
			}
			return nil
		})
		first := f.start()
		f.until(time.Minute, "the second page fails", func() bool { return len(f.called("Resolve")) > 2 })
		first.Stop()
		f.on("Resolve", nil)
		f.start()
		f.until(time.Minute, "another runner plans the rest", f.planned(b))
		for i, r := range f.rows(b) {
			duplicate := i == 10 || i == 700 || i == 1_100
			if (r.Reason == message.DuplicateRecipient) != duplicate {
				t.Errorf("row %d: %s %s", i, r.Status, r.Reason)
			}
		}
		for _, r := range f.pages()[len(f.pages())-1].Rows {
			if r.FirstSeen {
				t.Fatal("a runner that did not plan the first page takes an address for a new one")
			}
		}
		if !near(f.called("Resolve")[2].at.Sub(f.called("Resolve")[1].at), time.Second, 0) {
			t.Error("the retry does not wait for Timing.Retry")
		}
		f.finish(b)
		if got := f.now(b); got.Final.Settled() != 1_200 {
			t.Errorf("%d messages are settled", got.Final.Settled())
		}
	})
}

// The process has planned all pages, so its filter knows the addresses of earlier pages, and the ledger is asked for those.
func TestPlanSkipsAnAddressOfAnEarlierPage(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := f.newLeads(700)
		l := f.leads[leads[600]]
		l.Email = f.leads[leads[0]].Email
		f.leads[leads[600]], f.leads[leads[1]] = l, l
		b := f.accept(f.newChannel(0), leads)
		again := f.accept(f.newChannel(0), leads, func(r *bulk.Request) { r.Criteria.AllowDuplicateRecipients = true })
		f.start()
		f.until(time.Minute, "both are planned", func() bool { return f.now(b).Planned && f.now(again).Planned })
		if r := f.rows(b)[600]; r.Status != message.Skipped || r.Reason != message.DuplicateRecipient {
			t.Errorf("the second message to an address is %s %s", r.Status, r.Reason)
		}
		if r := f.rows(again)[1]; r.Status != message.Pending {
			t.Errorf("where duplicates are allowed, a second message on a page is %s %s", r.Status, r.Reason)
		}
		if r := f.rows(again)[600]; r.Status != message.Pending || r.Dedupe {
			t.Errorf("where duplicates are allowed it is %s, dedupe %v", r.Status, r.Dedupe)
		}
	})
}

// The row of each lead without a message has a reason. A suppressed address does not make a later one a duplicate.
func TestPlanDecidesForEachLead(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := f.newLeads(7)
		set := func(i int, email string) {
			l := f.leads[leads[i]]
			l.Email = email
			f.leads[leads[i]] = l
		}
		set(1, "")
		set(2, "nonsense")
		set(4, "l3@EXAMPLE.com") // as 3
		set(6, "l5@example.com") // as 5, which is suppressed
		f.blocked[message.HashAddress("l5@example.com")] = message.Unsubscribed
		b := f.accept(f.newChannel(0), leads)
		f.start()
		f.until(time.Minute, "it is planned", f.planned(b))
		want := []message.Reason{
			message.NoReason, message.NoRecipient, message.InvalidRecipient, message.NoReason, message.DuplicateRecipient,
			message.Unsubscribed, message.Unsubscribed,
		}
		ids := map[uuid.UUID]bool{}
		for i, r := range f.rows(b) {
			status := message.Skipped
			if want[i] == message.NoReason {
				status = message.Pending
			}
			if r.Status != status || r.Reason != want[i] || r.LeadID != leads[i] || r.Dedupe != (status == message.Pending) || ids[r.ID] {
				t.Errorf("lead %d: %+v, want %s", i, r, want[i])
			}
			ids[r.ID] = true
		}
		c := f.called("Suppressed")
		if len(c) != 1 || c[0].args[0] != message.Email || c[0].args[1] != message.Marketing || c[0].args[2] != 5 {
			t.Errorf("suppressions were looked up as %+v", c)
		}
	})
}

func TestPlanOfLeadsWithoutAddressLooksUpNoSuppression(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := f.newLeads(2)
		for _, id := range leads {
			f.leads[id] = message.Lead{ID: id}
		}
		b := f.accept(f.newChannel(0), leads)
		f.start()
		f.until(time.Minute, "it has ended", func() bool { return f.now(b).Status == bulk.Completed })
		if c := f.called("Suppressed"); len(c) != 0 {
			t.Errorf("%d look-ups without an address", len(c))
		}
		if f.now(b).Final.Settled() != 2 || len(f.called("Enqueue")) == 0 || f.waiting() != 0 {
			t.Errorf("%+v, %d tasks", f.now(b).Final, f.waiting())
		}
	})
}

// National numbers are read in the channel's region; a deleted channel has none.
func TestPlanUsesTheChannelsRegion(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		inBubble(t, func(t *testing.T, f *fake) {
			leads := f.newLeads(1)
			l := f.leads[leads[0]]
			l.Phone = "(415) 555-2671"
			f.leads[leads[0]] = l
			c := f.newChannel(0)
			c.Region, c.Type = "US", message.SMS
			f.channels[c.Key] = c
			b := f.accept(c, leads, func(r *bulk.Request) { r.Content.Subject = "" })
			if gone {
				delete(f.channels, c.Key)
			}
			f.start()
			f.until(time.Minute, "it is planned", f.planned(b))
			r := f.rows(b)[0]
			if !gone && r.Recipient != "+14155552671" || gone && r.Reason != message.InvalidRecipient {
				t.Errorf("gone %v: %q %s", gone, r.Recipient, r.Reason)
			}
		})
	}
}

// A page that could not be written is written again, as it was.
func TestPlanRepeatsAPageThatFailed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.fails("AddPage", 1, errDown)
		b := f.accept(f.newChannel(0), f.newLeads(700))
		f.start()
		f.until(time.Minute, "it is planned", f.planned(b))
		p := f.pages()
		if len(p) != 3 || p[0].Base != p[1].Base || p[0].Cursor != p[1].Cursor || p[2].Base != 500 {
			t.Errorf("%d pages", len(p))
		}
		for i, r := range f.rows(b) {
			if r.Status != message.Pending || !r.FirstSeen {
				t.Fatalf("row %d is %s %s, first seen %v", i, r.Status, r.Reason, r.FirstSeen)
			}
		}
		if got := f.reported(); len(got) != 1 || got[0] != "plan" {
			t.Errorf("reported %v", got)
		}
	})
}

// words are criteria that cost n comparisons per lead.
func words(n int) func(r *bulk.Request) {
	return func(r *bulk.Request) { r.Criteria.Words = make([]string, n) }
}

// resolving blocks the resolution of pages until the test closes release, and counts the pages that are being resolved.
type resolving struct {
	f       *fake
	under   int
	most    int
	release chan struct{}
}

// blockResolve blocks the pages of audiences that cost at least minComparisons per lead.
func (f *fake) blockResolve(minComparisons int) *resolving {
	r := &resolving{f: f, release: make(chan struct{})}
	f.on("Resolve", func(ctx context.Context, n int) error {
		f.mu.Lock()
		criteria := f.calls["Resolve"][n-1].args[0].(audience.Criteria)
		if criteria.Comparisons() < minComparisons {
			f.mu.Unlock()
			return nil
		}
		r.under++
		r.most = max(r.most, r.under)
		f.mu.Unlock()
		select {
		case <-r.release:
		case <-ctx.Done():
		}
		f.mu.Lock()
		r.under--
		f.mu.Unlock()
		return ctx.Err()
	})
	return r
}

// From 200 comparisons per lead on, a process resolves one page at a time.
func TestPlanResolvesExpensiveAudiencesOneAtATime(t *testing.T) {
	t.Parallel()
	for comparisons, want := range map[int]int{199: 3, 200: 1} {
		inBubble(t, func(t *testing.T, f *fake) {
			c, leads := f.newChannel(0), f.newLeads(1)
			var bulks []*bulk.Bulk
			for range 3 {
				bulks = append(bulks, f.accept(c, leads, words(comparisons)))
			}
			blocked := f.blockResolve(0)
			f.start()
			pass(10 * time.Second)
			if blocked.most != want {
				t.Errorf("%d comparisons: %d pages at a time, want %d", comparisons, blocked.most, want)
			}
			close(blocked.release)
			f.finish(bulks...)
		})
	}
}

// A bulk whose expensive audience has to wait is due again after two seconds.
func TestPlanOfAnExpensiveAudienceComesBack(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c, leads := f.newChannel(0), f.newLeads(1)
		first := f.accept(c, leads, words(200))
		blocked := f.blockResolve(0)
		f.start()
		pass(time.Second)
		second := f.accept(c, leads, words(200))
		pass(time.Second)
		if f.leaseOf(first) == uuid.Nil || f.leaseOf(second) != uuid.Nil {
			t.Error("the bulk that waits keeps its lease, or the other has lost it")
		}
		releases := f.called("Release")
		if len(releases) != 1 || releases[0].args[0].(bulk.Lease).BulkID != second.ID || releases[0].args[1] != 2*time.Second {
			t.Errorf("released %+v", releases)
		}
		close(blocked.release)
		f.finish(first, second)
	})
}

// Criteria that look cheap are expensive once a page of them has taken more than a second.
func TestPlanLearnsThatAnAudienceIsExpensive(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]int{900 * time.Millisecond: 2, 1_100 * time.Millisecond: 1} {
		inBubble(t, func(t *testing.T, f *fake) {
			c, leads := f.newChannel(0), f.newLeads(1_200)
			bulks := []*bulk.Bulk{f.accept(c, leads), f.accept(c, leads)}
			under, most := 0, 0
			f.on("Resolve", func(_ context.Context, n int) error {
				if n > 2 { // the first pages show how long they take, the others are counted
					f.mu.Lock()
					under++
					most = max(most, under)
					f.mu.Unlock()
					defer func() { f.mu.Lock(); under--; f.mu.Unlock() }()
				}
				time.Sleep(took)
				return nil
			})
			f.start()
			f.finish(bulks...)
			if most != want {
				t.Errorf("pages of %v: %d at a time, want %d", took, most, want)
			}
		})
	}
}

// The database gives up a page three times in a row: the bulk is cancelled, with a reason, and its messages are taken back.
func TestFaultAnAudienceThatIsTooSlowEndsItsBulk(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("Resolve", func(_ context.Context, n int) error {
			if n == 1 || n == 4 { // the first page after two failures before, and so the second one is given up at last
				return nil
			}
			return audience.ErrTooSlow
		})
		b := f.accept(f.newChannel(0), f.newLeads(2_000))
		f.start()
		f.until(time.Minute, "it is cancelled", func() bool { return f.now(b).Final != nil })
		got := f.now(b)
		if got.Status != bulk.Cancelled || got.Final.Settled() != 1_500 || !strings.Contains(got.StatusReason, "narrow") || got.Planned {
			t.Errorf("%s %q", got.Status, got.StatusReason)
		}
		if n := len(f.called("Resolve")); n != 7 { // 1 page, 2 failures, 1 page, 3 failures
			t.Errorf("resolved %d times", n)
		}
		if f.events("abandoned") != 1 || f.events("completed") != 1 {
			t.Errorf("%d abandoned, %d completed", f.events("abandoned"), f.events("completed"))
		}
		if total := got.Total; total != 1_500 {
			t.Errorf("%d messages were planned", total)
		}
		for _, r := range f.rows(b) {
			if r.Status != message.Cancelled {
				t.Fatalf("a message is %s", r.Status)
			}
		}
		if n := len(f.called("Release")); n != 0 || f.events("left") != 1 {
			t.Errorf("released %d times, left %d times: abandoning ends the lease", n, f.events("left"))
		}
	})
}

// An abandoned bulk ends without waiting for the next poll.
func TestPlanWakesTheRunnerAfterAbandoning(t *testing.T) {
	t.Parallel()
	inBubble(t, func(_ *testing.T, f *fake) {
		f.on("Resolve", func(context.Context, int) error { return audience.ErrTooSlow })
		b := f.accept(f.newChannel(0), f.newLeads(1))
		f.start(func(d *bulk.RunnerDeps) { d.Timing.Poll = time.Hour })
		f.until(time.Minute, "it has ended", func() bool { return f.now(b).Final != nil })
	})
}

// A bulk that cannot be abandoned because the database does not answer is tried again.
func TestPlanAbandonsAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("Resolve", func(context.Context, int) error { return audience.ErrTooSlow })
		f.fails("Abandon", 1, errDown)
		b := f.accept(f.newChannel(0), f.newLeads(1))
		f.start()
		f.until(time.Minute, "it is cancelled", func() bool { return f.now(b).Final != nil })
		if n := len(f.called("Abandon")); n != 2 {
			t.Errorf("abandoned %d times", n)
		}
	})
}

// A lease that is lost while a page is written ends the run at once, and nothing more is written.
func TestPlanEndsWithItsLease(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(700))
		f.on("AddPage", func(context.Context, int) error { return bulk.ErrLeaseLost })
		f.start(func(d *bulk.RunnerDeps) { d.Timing.Poll = time.Hour })
		pass(time.Second)
		if n := len(f.called("AddPage")); n != 1 || f.events("left") != 1 || len(f.reported()) > 0 {
			t.Errorf("%d pages, left %d times, failures %v", n, f.events("left"), f.reported())
		}
		if f.now(b).Total != 0 {
			t.Error("something was written")
		}
	})
}

// A channel that cannot be read holds the plan up until it can.
func TestPlanWaitsForItsChannel(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.fails("AtLeast", 3, message.Unavailable("read the channel", errDown))
		b := f.accept(f.newChannel(0), f.newLeads(1))
		f.start()
		f.until(time.Minute, "it is planned", f.planned(b))
		if n := len(f.called("AtLeast")); n != 4 || f.reported()[0] != "read the channel" {
			t.Errorf("read %d times, reported %v", n, f.reported())
		}
	})
}
