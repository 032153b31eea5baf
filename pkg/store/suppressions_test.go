package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/message"
	"herald/pkg/store/storetest"
)

// A suppression stops exactly the message types and the channel type that it names, whatever its reason.
func TestSuppressedByTypeAndReason(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		type stop struct {
			channel message.ChannelType
			typ     message.MessageType
			reason  message.Reason
		}
		var stops []stop
		hashOf := func(c stop) message.Hash {
			return message.HashAddress(string(c.channel) + string(c.typ) + string(c.reason))
		}
		for _, channel := range []message.ChannelType{message.Email, message.SMS} {
			for _, typ := range message.MessageTypes {
				for _, reason := range message.SuppressionReasons {
					stops = append(stops, stop{channel, typ, reason})
				}
			}
		}
		hashes := []message.Hash{message.HashAddress("not suppressed")}
		for _, c := range stops {
			hashes = append(hashes, hashOf(c))
			must(t, s.PutSuppression(t.Context(), &message.Suppression{
				ID: newID(), Type: c.channel, Hash: hashOf(c), Reason: c.reason, MessageTypes: []message.MessageType{c.typ}, CreatedAt: time.Now(),
			}))
		}
		for _, channel := range []message.ChannelType{message.Email, message.SMS, message.InstagramDM} {
			for _, typ := range message.MessageTypes {
				want := map[message.Hash]message.Reason{}
				for _, c := range stops {
					if c.channel == channel && c.typ == typ {
						want[hashOf(c)] = c.reason
					}
				}
				got, err := s.Suppressed(t.Context(), channel, typ, hashes)
				must(t, err)
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s %s: %s", channel, typ, d)
				}
			}
		}
	})
}
