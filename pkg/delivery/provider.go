package delivery

import (
	"context"

	"herald/pkg/channel"
	"herald/pkg/message"
)

// provider returns the adapter of the channel's provider.
func (d *Deliverer) provider(ch *channel.Channel) Provider {
	if p, ok := d.deps.Providers[ch.Provider]; ok {
		return p
	}
	return absentProvider{}
}

// absentProvider stands for a provider that this program does not have. A newer program made the channel, so the message
// waits as if the provider did not answer.
type absentProvider struct{}

// Parts implements Provider.
func (absentProvider) Parts(*message.Content) int { return 1 }

// Send implements Provider.
func (absentProvider) Send(_ context.Context, e Envelope) Response {
	return Response{
		Class: NotSent, Reason: message.Unreachable, Detail: "this program has no provider " + e.Channel.Provider,
		Failure: &message.Failure{Code: "provider_unreachable", Text: "the provider is not available"},
	}
}
