package channel

import (
	"testing"

	"herald/pkg/message"
)

func TestAllows(t *testing.T) {
	c := &Channel{Sender: "news@acme.test", AllowedSenders: []string{"*@acme.test", "+1*", "["}}
	for in, want := range map[string]bool{"NEWS@acme.test": true, "ceo@acme.test": true, "x@evil.test": false, "x@acme.test.evil.test": false, "+15": true, "+25": false} {
		if got := c.Allows(in); got != want {
			t.Errorf("Allows(%q) = %v", in, got)
		}
	}
}

// The channel's own sender needs no pattern, in any letter case.
func TestAllowsItsOwnSender(t *testing.T) {
	c := &Channel{Sender: "News@acme.test"}
	spaced := " news@ACME.test "
	for in, want := range map[string]bool{"News@acme.test": true, spaced: true, "ceo@acme.test": false, "": false} {
		if got := c.Allows(in); got != want {
			t.Errorf("Allows(%q) = %v", in, got)
		}
	}
}

func TestCost(t *testing.T) {
	sms := &Channel{Key: Key{Type: message.SMS}, Price: 79, PriceMedia: new(message.Micros(200))}
	noMedia := &Channel{Key: Key{Type: message.SMS}, Price: 79}
	for name, c := range map[string]struct {
		ch       *Channel
		segments int
		media    bool
		want     message.Micros
	}{
		"email": {&Channel{Key: Key{Type: message.Email}, Price: 10}, 0, false, 10}, "one segment": {sms, 1, false, 79}, "three segments": {sms, 3, false, 237},
		"media": {sms, 3, true, 200}, "media without its price": {noMedia, 2, true, 158}, "no text": {sms, 0, false, 79},
	} {
		if got := c.ch.Cost(c.segments, c.media); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
