package bulk_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
)

func (f *fake) newPreviewer(timeout time.Duration) *bulk.Previewer {
	return bulk.NewPreviewer(bulk.PreviewDeps{Resolver: f, Plan: f, Store: f, Queue: f, Timeout: timeout})
}

// setEmail gives a lead another address.
func (f *fake) setEmail(id uuid.UUID, email string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.leads[id]
	l.Email = email
	f.leads[id] = l
}

// A dry run decides for every lead as the plan does, within a page and across pages.
func TestPreviewDecidesAsThePlan(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := append(f.newLeads(2_500), uuid.New(), uuid.New())
		f.setEmail(leads[1], "")
		f.setEmail(leads[2], "nonsense")
		f.setEmail(leads[4], "L3@example.com")     // as 3, on the same page
		f.setEmail(leads[1_700], "l3@example.com") // as 3, on another page
		f.setEmail(leads[2_400], "l3@example.com")
		f.blocked[message.HashAddress("l5@example.com")] = message.Unsubscribed
		r := newRequest(f.newChannel(100), leads)
		preview, err := f.newPreviewer(0).Preview(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		b := f.accept(r.Channel, leads)
		f.start()
		f.until(time.Minute, "it is planned", f.planned(b))
		skipped, pending := map[message.Reason]int64{}, int64(0)
		for _, row := range f.rows(b) {
			if row.Status == message.Pending {
				pending++
			} else {
				skipped[row.Reason]++
			}
		}
		if preview.Total != f.now(b).Total || preview.Reachable != pending || preview.NotFound != 2 || len(preview.Skipped) != len(skipped) {
			t.Errorf("the dry run: %+v, the plan: %d of %d, skipped %v", preview, pending, f.now(b).Total, skipped)
		}
		for reason, n := range skipped {
			if preview.Skipped[reason] != n {
				t.Errorf("%s: the dry run %d, the plan %d", reason, preview.Skipped[reason], n)
			}
		}
		if c := f.called("Suppressed")[0]; c.args[0] != message.Email || c.args[1] != message.Marketing || c.args[2] != 998 {
			t.Errorf("suppressions were looked up with %v", c.args)
		}
		if want := float64(pending) / 100; preview.Seconds != want {
			t.Errorf("%v seconds, want %v", preview.Seconds, want)
		}
	})
}

func TestPreviewCountsRepeatedAddressesWhereTheyAreAllowed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := f.newLeads(1_500)
		f.setEmail(leads[1], "l0@example.com")
		f.setEmail(leads[1_400], "l0@example.com")
		r := newRequest(f.newChannel(0), leads)
		r.Criteria.AllowDuplicateRecipients = true
		preview, err := f.newPreviewer(0).Preview(t.Context(), r)
		if err != nil || preview.Reachable != 1_500 || len(preview.Skipped) != 0 {
			t.Errorf("%+v, %v", preview, err)
		}
	})
}

// The cost is that of the first hundred messages that can be rendered, for all; five are shown.
func TestPreviewEstimates(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := f.newLeads(300)
		c := f.newChannel(0)
		c.Price = 10
		r := newRequest(c, leads)
		r.Content.Text = "Hello {{ first_name }}"
		for _, workers := range []int{0, 1, 3} {
			f.workers = workers
			preview, err := f.newPreviewer(0).Preview(t.Context(), r)
			if err != nil || preview.Cost != 3_000 || preview.Seconds != 300.0/float64(max(workers, 1)*1_000) {
				t.Fatalf("%d workers: %+v, %v", workers, preview, err)
			}
			if len(preview.Samples) != 5 || preview.Samples[4].LeadID != leads[4] || preview.Samples[4].Recipient != "l4@example.com" || preview.Samples[4].Text != "Hello Lead4" {
				t.Errorf("samples %+v", preview.Samples)
			}
		}
		f.setEmail(leads[299], "")
		if preview, err := f.newPreviewer(0).Preview(t.Context(), r); err != nil || preview.Cost != 2_990 {
			t.Errorf("with a lead that is skipped: %+v, %v", preview, err)
		}
		f.setEmail(leads[299], "l299@example.com")
		if c := f.called("LeadsByID")[0]; len(c.args[0].([]uuid.UUID)) != 100 {
			t.Errorf("%d leads were read to be rendered", len(c.args[0].([]uuid.UUID)))
		}
		f.fails("Workers", 100, errDown)
		if preview, err := f.newPreviewer(0).Preview(t.Context(), r); err != nil || preview.Seconds != 0.3 {
			t.Errorf("without Redis: %+v, %v", preview, err)
		}
	})
}

// A lead that was erased after it was resolved is neither shown nor paid for, and the others stand for it.
func TestPreviewOfALeadThatIsErasedMeanwhile(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := f.newLeads(4)
		c := f.newChannel(0)
		c.Price = 10
		f.on("LeadsByID", func(context.Context, int) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.leads, leads[0])
			return nil
		})
		preview, err := f.newPreviewer(0).Preview(t.Context(), newRequest(c, leads))
		if err != nil || len(preview.Samples) != 3 || preview.Samples[0].LeadID != leads[1] || preview.Cost != 40 {
			t.Errorf("%+v, %v", preview, err)
		}
	})
}

func TestPreviewOfNoLead(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		preview, err := f.newPreviewer(0).Preview(t.Context(), newRequest(f.newChannel(0), nil))
		if err != nil || preview.Total != 0 || preview.Cost != 0 || preview.Seconds != 0 || len(f.called("LeadsByID")) != 0 || len(f.called("Suppressed")) != 0 {
			t.Errorf("%+v, %v", preview, err)
		}
	})
}

// A dry run ends after its timeout, ten seconds by default. The end of the caller is not a timeout.
func TestPreviewHasATimeout(t *testing.T) {
	t.Parallel()
	for timeout, want := range map[time.Duration]time.Duration{0: 10 * time.Second, time.Second: time.Second} {
		inBubble(t, func(t *testing.T, f *fake) {
			f.on("Resolve", hang)
			began := time.Now()
			_, err := f.newPreviewer(timeout).Preview(t.Context(), newRequest(f.newChannel(0), f.newLeads(1)))
			if !errors.Is(err, audience.ErrTooSlow) || time.Since(began) != want {
				t.Errorf("%v after %v, want %v", err, time.Since(began), want)
			}
		})
	}
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("Resolve", hang)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.newPreviewer(0).Preview(ctx, newRequest(f.newChannel(0), f.newLeads(1))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

func TestPreviewReportsErrors(t *testing.T) {
	t.Parallel()
	for _, port := range []string{"Resolve", "Suppressed", "LeadsByID"} {
		inBubble(t, func(t *testing.T, f *fake) {
			f.fails(port, 1, errDown)
			if _, err := f.newPreviewer(0).Preview(t.Context(), newRequest(f.newChannel(0), f.newLeads(1))); !errors.Is(err, errDown) {
				t.Errorf("%s fails: %v", port, err)
			}
		})
	}
	inBubble(t, func(t *testing.T, f *fake) {
		r := newRequest(f.newChannel(0), f.newLeads(1))
		r.Content.Text = ""
		if _, err := f.newPreviewer(0).Preview(t.Context(), r); !isInvalid(err) || len(f.called("Resolve")) != 0 {
			t.Errorf("%v", err)
		}
	})
}

// TestExplain covers a lead with and without a message, and one that was erased.
func TestExplain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := f.newLeads(3)
		c := f.newChannel(0)
		f.changed(c, func(c *channel.Channel) { c.State = channel.Paused })
		b := f.accept(c, leads[:2])
		p := f.newPreviewer(0)
		if e, err := p.Explain(t.Context(), b.ID, leads[0]); err != nil || e.Planned || e.Message != nil || !e.Matches || e.Lead.ID != leads[0] {
			t.Errorf("before the plan: %+v, %v", e, err)
		}
		f.start()
		f.until(time.Minute, "it is planned", f.planned(b))
		if e, err := p.Explain(t.Context(), b.ID, leads[1]); err != nil || !e.Planned || e.Message.Seq != 1 || !e.Matches || len(e.Verdicts) != 1 {
			t.Errorf("with a message: %+v, %v", e, err)
		}
		if e, err := p.Explain(t.Context(), b.ID, leads[2]); err != nil || e.Message != nil || e.Matches || e.LeadID != leads[2] {
			t.Errorf("outside the audience: %+v, %v", e, err)
		}
		delete(f.leads, leads[0])
		if e, err := p.Explain(t.Context(), b.ID, leads[0]); err != nil || e.Lead != nil || e.Message == nil {
			t.Errorf("an erased lead with a message: %+v, %v", e, err)
		}
		if _, err := p.Explain(t.Context(), b.ID, uuid.New()); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("an unknown lead: %v", err)
		}
		if _, err := p.Explain(t.Context(), uuid.New(), leads[1]); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("an unknown bulk: %v", err)
		}
		for _, port := range []string{"MessageOf", "LeadsByID"} {
			f.on(port, func(context.Context, int) error { return errDown })
			if _, err := p.Explain(t.Context(), b.ID, leads[1]); !errors.Is(err, errDown) {
				t.Errorf("%s fails: %v", port, err)
			}
			f.on(port, nil)
		}
	})
}
