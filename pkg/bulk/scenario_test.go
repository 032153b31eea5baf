package bulk_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
)

// newLeads stores leads and returns their ids. The i-th has the address l<i>@example.com and the phone +1415555<i>.
func (f *fake) newLeads(n int) []uuid.UUID {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7())
		f.leads[ids[i]] = message.Lead{ID: ids[i], Email: fmt.Sprintf("l%d@example.com", i), Phone: fmt.Sprintf("+1415555%04d", i), FirstName: fmt.Sprint("Lead", i)}
	}
	return ids
}

func (f *fake) newService() *bulk.Service {
	return bulk.NewService(bulk.ServiceDeps{Store: f, Lifecycle: f, Queue: f, Counters: f, Channels: f, Health: f, Observer: f})
}

// newRequest is a request for a bulk to the leads.
func newRequest(c *channel.Channel, leads []uuid.UUID) bulk.Request {
	return bulk.Request{
		Channel: c, Content: message.Content{Subject: "s", Text: "t"}, Criteria: audience.Criteria{LeadIDs: leads}, MessageType: message.Marketing,
		Priority: message.Normal, Request: []byte(`{}`),
	}
}

// accept accepts a bulk to the leads; change may change the request.
func (f *fake) accept(c *channel.Channel, leads []uuid.UUID, change ...func(r *bulk.Request)) *bulk.Bulk {
	f.t.Helper()
	r := newRequest(c, leads)
	for _, change := range change {
		change(&r)
	}
	b, err := f.newService().Accept(f.t.Context(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// start starts a runner with the intervals of a real deployment. It is stopped when the test ends.
func (f *fake) start(change ...func(d *bulk.RunnerDeps)) *bulk.Runner {
	d := bulk.RunnerDeps{
		Leases: f, Plan: f, Feed: f, Bulks: f, Resolver: f, Queue: f, Counters: f, Rescuer: f, Channels: f, Health: f, Observer: f, Timing: bulk.DefaultTiming(),
	}
	for _, change := range change {
		change(&d)
	}
	r := bulk.NewRunner(d)
	f.mu.Lock()
	f.runner = r
	f.mu.Unlock()
	r.Start()
	f.t.Cleanup(r.Stop)
	return r
}

// now returns a bulk's row as it is now.
func (f *fake) now(b *bulk.Bulk) bulk.Bulk {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bulks[b.ID].Bulk
}

// rows returns the messages of a bulk as they were planned.
func (f *fake) rows(b *bulk.Bulk) (out []bulk.PlannedRow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.bulks[b.ID].rows {
		out = append(out, m.PlannedRow)
	}
	return out
}

// finish delivers all messages until the bulks have ended.
func (f *fake) finish(bulks ...*bulk.Bulk) {
	f.t.Helper()
	f.until(time.Hour, "the bulks have ended", func() bool {
		f.deliver(1_000_000)
		return !slices.ContainsFunc(bulks, func(b *bulk.Bulk) bool { return f.now(b).Final == nil })
	})
}
