package audience_test

import (
	"testing"

	"herald/pkg/audience"
	"herald/pkg/message"
)

// For any stored value, an address that Usable returns is valid, and Usable returns it unchanged when it is stored.
func FuzzUsable(f *testing.F) {
	for _, s := range []string{"ann@example.com", " Ann <ann@example.com>", "a@b@c", "+1 (555) 123-4567", "0049 170 1234567", "١٢٣", "17841400000000000", "ann@exämple.com", "a\x00@b.c", "@", "+"} {
		f.Add(s, "DE")
	}
	f.Fuzz(func(t *testing.T, stored, region string) {
		for _, typ := range message.ChannelTypes {
			address, reason := audience.Usable(typ, stored, region)
			if (address == "") == (reason == message.NoReason) {
				t.Errorf("%s %q: %q, %q", typ, stored, address, reason)
			}
			if address == "" {
				continue
			}
			if again, ok := message.ValidRecipient(typ, address); !ok || again != address {
				t.Errorf("%s %q: %q is no recipient: %q", typ, stored, address, again)
			}
		}
	})
}
