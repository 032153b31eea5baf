package delivery_test

import (
	"testing"

	"herald/pkg/channel"
	"herald/pkg/delivery"
)

func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		ch   channel.Channel
		want delivery.Decision
	}{
		"active":               {channel.Channel{State: channel.Active}, delivery.Decision{Immediate: true}},
		"active, with a rate":  {channel.Channel{State: channel.Active, RatePerSecond: 2.5}, delivery.Decision{Rate: 2.5}},
		"down":                 {channel.Channel{State: channel.Down, StateReason: "x"}, delivery.Decision{}},
		"paused":               {channel.Channel{State: channel.Paused, StateReason: "revoked"}, delivery.Decision{Held: true, Why: "revoked"}},
		"paused, with a rate":  {channel.Channel{State: channel.Paused, RatePerSecond: 1}, delivery.Decision{Held: true, Rate: 1}},
		"resumed, with a text": {channel.Channel{State: channel.Active, StateReason: "old"}, delivery.Decision{Immediate: true}},
	} {
		if got := delivery.Decide(&c.ch); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
