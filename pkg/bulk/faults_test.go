package bulk_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/provider/vendors"
	"herald/pkg/seal"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// vanish removes the channel. Only a change in the database itself can do that: the API refuses while bulks use the channel.
func (w *world) vanish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = message.Errorf(message.CodeNotFound, "channel not found")
}

// A bulk without its channel has the channel state DELETED in every view, and can be paused, resumed and cancelled.
func TestFaultABulkWithoutItsChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	waits, paused := w.accept(3), w.accept(2)
	w.vanish()
	shown := func(what string, v *bulk.View, err error, want bulk.Status) {
		t.Helper()
		if err != nil || v.Status != want || v.ChannelState != channel.Deleted || v.ChannelReason != "" {
			t.Errorf("%s: %+v, %v", what, v, err)
		}
	}
	v, err := w.service.Get(t.Context(), waits.ID)
	shown("read", v, err, bulk.Processing)
	v, err = w.service.Wait(t.Context(), waits.ID, 0)
	shown("waited for", v, err, bulk.Processing)
	list, err := w.service.List(t.Context(), bulk.Filter{}, uuid.Nil, 10)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d bulks, %v", len(list), err)
	}
	for i := range list {
		shown("listed", &list[i], nil, bulk.Processing)
	}
	v, err = w.service.Pause(t.Context(), paused.ID)
	shown("paused", v, err, bulk.Paused)
	v, err = w.service.Resume(t.Context(), paused.ID)
	shown("resumed", v, err, bulk.Processing)
	v, err = w.service.Cancel(t.Context(), paused.ID)
	shown("cancelled", v, err, bulk.Cancelled)
	w.runner(0)
	if v, err := w.service.Wait(t.Context(), paused.ID, timeout); err != nil || v.Final == nil || v.Status != bulk.Cancelled || v.ChannelState != "" {
		t.Errorf("the cancelled bulk does not end: %+v, %v", v, err)
	}
	// The other bulk continues, and deliveries fail its messages.
	testenv.Eventually(t, timeout, "the messages are enqueued", func() bool { return w.enqueued() == 3 })
	w.deliver(3, true)
	if v := w.finished(waits); v.Figures.Total != 3 {
		t.Errorf("%+v", v.Figures)
	}
}

// Another error of the channel's store is an error of the list, not a bulk without a channel.
func TestFaultAChannelThatCannotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.accept(1)
	w.gone = message.Unavailable("read the channel", nil)
	if v, err := w.service.Get(t.Context(), b.ID); !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := w.service.List(t.Context(), bulk.Filter{}, uuid.Nil, 10); !message.IsCode(err, message.CodeUnavailable) {
		t.Errorf("%v", err)
	}
}

// A bulk over a channel that was changed in another process a moment before is planned over the channel as it is then, though
// this process has an older one in its cache.
func TestFaultABulkIsPlannedOverItsChannelsVersion(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct {
		change func(*channel.Channel)
		phone  string
		want   message.Reason
	}{
		"a region is set":   {func(c *channel.Channel) { c.Region = "US" }, "(415) 555-2671", message.NoReason},
		"another region":    {func(c *channel.Channel) { c.Region = "NO" }, "22 22 55 55", message.NoReason},
		"the region is off": {func(c *channel.Channel) { c.Region = "" }, "030 123456", message.InvalidRecipient},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.store
			w.ch = storetest.Channel(t, s, message.SMS)
			registry, elsewhere := channel.NewRegistry(s, s, s, vendors.All.Providers()), channel.NewRegistry(s, s, s, vendors.All.Providers())
			if _, err := elsewhere.Update(t.Context(), w.ch.Key, func(c *channel.Channel) error {
				c.Sender, c.Region = "+15005550006", "DE"
				c.Credentials = map[string]seal.Secret{"account_sid": seal.NewSecret("AC"), "auth_token": seal.NewSecret("x")}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if ch, err := registry.Get(t.Context(), w.ch.Key); err != nil || ch.Region != "DE" {
				t.Fatalf("%+v, %v", ch, err)
			}
			changed, err := elsewhere.Update(t.Context(), w.ch.Key, func(c *channel.Channel) error {
				change.change(c)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			l := message.Lead{ID: uuid.New(), Phone: change.phone, CreatedAt: time.Now(), UpdatedAt: time.Now()}
			if err := s.InsertLeads(t.Context(), []message.Lead{l}); err != nil {
				t.Fatal(err)
			}
			b, err := w.service.Accept(t.Context(), bulk.Request{
				Channel: changed, Content: message.Content{Text: "t"}, Criteria: audience.Criteria{LeadIDs: []uuid.UUID{l.ID}},
				MessageType: message.Marketing, Priority: message.Normal, Request: []byte(`{}`),
			})
			if err != nil {
				t.Fatal(err)
			}
			r := bulk.NewRunner(bulk.RunnerDeps{
				Leases: s, Plan: s, Feed: s, Bulks: s, Resolver: s, Queue: w, Counters: w.counters, Rescuer: w,
				Channels: registry, Health: w, Observer: w, Timing: w.timing,
			})
			r.Start()
			t.Cleanup(r.Stop)
			var rows []bulk.Row
			testenv.Eventually(t, timeout, "the bulk is planned", func() bool {
				var err error
				if rows, err = s.Walk(t.Context(), b.ID, 0, 10); err != nil {
					t.Fatal(err)
				}
				return len(rows) == 1
			})
			if rows[0].State.Reason != change.want {
				t.Errorf("%+v", rows[0].State)
			}
		})
	}
}
