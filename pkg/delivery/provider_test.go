package delivery_test

import (
	"testing"

	"herald/pkg/delivery"
	"herald/pkg/message"
)

// unusable panics when it is asked for anything.
type unusable struct{ delivery.Provider }

// The adapter is that of the channel's provider, also where several providers send a channel type.
func TestTheChannelsProviderSends(t *testing.T) {
	r := newRig(t, nil)
	r.ch.Provider = "ses"
	r.deps.Providers = map[string]delivery.Provider{"sendgrid": unusable{}, "ses": r.fakes}
	if res := r.run(); res.Status != message.Sent {
		t.Errorf("%+v", res)
	}
}

// A message of a channel whose provider this program does not have waits.
func TestAbsentProvider(t *testing.T) {
	r := newRig(t, nil)
	r.ch.Provider = "ses"
	if res := r.run(); res.Status != message.Pending || res.Reason != message.Unreachable || res.Again == 0 {
		t.Errorf("%+v", res)
	}
}
