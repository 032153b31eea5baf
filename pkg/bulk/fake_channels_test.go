package bulk_test

import (
	"context"

	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/message"
)

func (f *fake) Get(ctx context.Context, k channel.Key) (*channel.Channel, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Get", k); err != nil {
		return nil, err
	}
	return f.channel(k)
}

func (f *fake) AtLeast(ctx context.Context, k channel.Key, version int64) (*channel.Channel, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "AtLeast", k, version); err != nil {
		return nil, err
	}
	return f.channel(k)
}

func (f *fake) channel(k channel.Key) (*channel.Channel, error) {
	c := f.channels[k]
	if c == nil {
		return nil, message.Errorf(message.CodeNotFound, "channel not found")
	}
	copied := *c
	return &copied, nil
}

// changed changes a channel, as an operator would.
func (f *fake) changed(c *channel.Channel, change func(c *channel.Channel)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.channels[c.Key])
}

func (f *fake) State(ctx context.Context, _ channel.Key) channel.State {
	defer f.mu.Unlock()
	if f.enter(ctx, "State") != nil {
		return channel.Active
	}
	return f.state
}

func (f *fake) Rate(_ context.Context, c *channel.Channel) float64 { return c.RatePerSecond }

// newChannel stores an e-mail channel; a rate of 0 is none.
func (f *fake) newChannel(rate float64) *channel.Channel {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &channel.Channel{
		Key: channel.Key{ID: uuid.New(), Type: message.Email}, Provider: "sendgrid", State: channel.Active, RatePerSecond: rate, Version: 7,
	}
	f.channels[c.Key] = c
	copied := *c
	return &copied
}
