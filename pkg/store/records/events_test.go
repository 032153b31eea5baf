package records_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/channel"
	"herald/pkg/event"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
)

func TestEventsOfChannelsAndLeads(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		ch := storetest.Channel(t, s, message.Email)
		set := func(change func(*channel.Channel)) *channel.Channel {
			t.Helper()
			c, err := s.UpdateChannel(ctx, ch.Key, func(c *channel.Channel) error {
				change(c)
				return nil
			})
			must(t, err)
			return c
		}
		set(func(c *channel.Channel) { c.Name = "no event" })
		set(func(c *channel.Channel) { c.State = channel.Paused })
		active := set(func(c *channel.Channel) { c.State = channel.Active })
		must(t, s.PauseChannel(ctx, ch.Key, active.Version-1, "an old version"))
		must(t, s.PauseChannel(ctx, ch.Key, active.Version, "rejected credentials"))
		must(t, s.PauseChannel(ctx, ch.Key, active.Version, "rejected credentials"))
		id := storetest.Lead(t, s, nil)
		must(t, s.EraseLead(ctx, id))
		if err := s.EraseLead(ctx, id); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("erased twice: %v", err)
		}
		var seen int64
		want := []event.Event{
			event.ChannelPaused{ChannelID: ch.ID, ChannelType: ch.Type},
			event.ChannelResumed{ChannelID: ch.ID, ChannelType: ch.Type},
			event.ChannelPaused{ChannelID: ch.ID, ChannelType: ch.Type, Reason: "rejected credentials"},
			event.LeadErased{LeadID: id},
		}
		if d := cmp.Diff(want, storetest.Published(t, s, &seen)); d != "" {
			t.Error(d)
		}
	})
}
