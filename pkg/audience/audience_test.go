package audience

import (
	"testing"

	"herald/pkg/message"
)

func TestUsable(t *testing.T) {
	for _, c := range []struct {
		typ            message.Type
		stored, region string
		want           string
		reason         message.Reason
	}{
		{message.Email, " Ann@Example.COM ", "", "Ann@example.com", ""},
		{message.Email, "", "", "", message.NoRecipient},
		{message.Email, "  ", "", "", message.NoRecipient},
		{message.Email, "nonsense", "", "", message.InvalidRecipient},
		{message.SMS, "+1234567890", "", "+1234567890", ""}, // no assigned number, but one by form: the provider has the last word
		{message.SMS, "+44 20 7946 0958", "", "+442079460958", ""},
		{message.SMS, "(415) 555-0101", "US", "+14155550101", ""},
		{message.SMS, "(415) 555-0101", "", "", message.InvalidRecipient},
		{message.SMS, "12", "US", "", message.InvalidRecipient},
		{message.SMS, "letters", "US", "", message.InvalidRecipient},
		{message.InstagramDM, "17841400000000001", "", "17841400000000001", ""},
		{message.InstagramDM, "@ann", "", "", message.InvalidRecipient},
	} {
		got, reason := Usable(c.typ, c.stored, c.region)
		if got != c.want || reason != c.reason {
			t.Errorf("Usable(%s, %q, %q) = %q, %q, want %q, %q", c.typ, c.stored, c.region, got, reason, c.want, c.reason)
		}
	}
}
