package event_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/event"
	"herald/pkg/message"
)

// The types of all events are distinct, the id of an event is that of its subject, and an event survives being stored.
func TestEventsAreStored(t *testing.T) {
	id := uuid.New()
	seen := map[event.Type]bool{}
	for want, e := range map[event.Type]event.Event{
		"bulk.accepted":   event.BulkAccepted{BulkID: id, ChannelID: uuid.New(), ChannelType: message.SMS, MessageType: message.Marketing},
		"bulk.planned":    event.BulkPlanned{BulkID: id, Total: 3, NotFound: 2},
		"bulk.paused":     event.BulkPaused{BulkID: id},
		"bulk.resumed":    event.BulkResumed{BulkID: id},
		"bulk.cancelled":  event.BulkCancelled{BulkID: id, Reason: "too slow"},
		"bulk.completed":  event.BulkCompleted{BulkID: id, Status: "COMPLETED", Total: 7},
		"channel.paused":  event.ChannelPaused{ChannelID: id, ChannelType: message.Email, Reason: "rejected credentials"},
		"channel.resumed": event.ChannelResumed{ChannelID: id, ChannelType: message.Email},
		"lead.erased":     event.LeadErased{LeadID: id},
	} {
		if e.Type() != want || e.Subject() != id || seen[want] {
			t.Errorf("%T has type %s and subject %s", e, e.Type(), e.Subject())
		}
		seen[want] = true
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := event.Decode(want, data)
		if err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if d := cmp.Diff(e, got); d != "" {
			t.Error(d)
		}
	}
}

func TestDecodeRejectsWhatItDoesNotKnow(t *testing.T) {
	for name, c := range map[string]struct {
		typ  event.Type
		data string
	}{"an unknown type": {"bulk.unknown", `{}`}, "damaged data": {event.TypeBulkPaused, `{"bulk_id":1}`}} {
		if e, err := event.Decode(c.typ, []byte(c.data)); err == nil {
			t.Errorf("%s: decoded as %+v", name, e)
		}
	}
}
