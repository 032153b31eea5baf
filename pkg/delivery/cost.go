package delivery

import (
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/render"
)

// Cost is what a message costs over a channel: its price, an SMS once per segment, an SMS with media its own price.
func Cost(ch *channel.Channel, r render.Rendered) message.Micros {
	if ch.Type != message.SMS {
		return ch.Price
	}
	if len(r.MediaURLs) > 0 && ch.PriceMedia > 0 {
		return ch.PriceMedia
	}
	return ch.Price * message.Micros(max(r.Segments, 1))
}
