package main

import (
	"context"
	"time"

	"herald/pkg/client"
	"herald/pkg/message"
)

type messagesCmd struct {
	List messagesListCmd `cmd:"" help:"List messages, newest first."`
}

type messagesListCmd struct {
	output
	Bulk          string    `help:"Only messages of this bulk." placeholder:"ID"`
	Lead          string    `help:"Only messages to this lead." placeholder:"ID"`
	Status        []string  `help:"Only messages with any of these statuses, separated by commas."`
	Reason        []string  `help:"Only messages with any of these reasons, separated by commas."`
	Failed        bool      `help:"Only messages that ended as FAILED, SKIPPED, UNKNOWN or CANCELLED."`
	Type          string    `help:"Only messages over this type of channel: ${types}."`
	Recipient     string    `help:"Only messages to this address."`
	CreatedAfter  time.Time `help:"Only messages created after this time, as in 2025-01-31T10:30:00Z."`
	CreatedBefore time.Time `help:"Only messages created before this time."`
	UpdatedAfter  time.Time `help:"Only messages changed after this time."`
	Most          int       `default:"20" help:"Maximum number of messages; 0: all."`
}

// Run lists messages. With --json it prints one JSON object per line.
func (c *messagesListCmd) Run(ctx context.Context, api *client.Client) error {
	f := client.MessageFilter{
		BulkID: c.Bulk, LeadID: c.Lead, Statuses: wordsAs[message.Status](c.Status), Reasons: wordsAs[message.Reason](c.Reason), Failed: c.Failed,
		Type: message.ChannelType(c.Type), Recipient: c.Recipient, CreatedAfter: c.CreatedAfter, CreatedBefore: c.CreatedBefore, UpdatedAfter: c.UpdatedAfter,
	}
	return listed(c.output, api.Messages(ctx, f), c.Most, "MESSAGE\tTYPE\tSTATUS\tREASON\tCODE\tRECIPIENT\tUPDATED", func(m *client.Message) []any {
		code := "-"
		if m.Error != nil {
			code = m.Error.Code
		}
		return []any{m.ID, m.ChannelType, m.Status, orDash(m.Reason), code, orDash(m.Recipient), moment(m.UpdatedAt)}
	})
}

// wordsAs returns words of the command line as values of the API, which checks them.
func wordsAs[E ~string](words []string) []E {
	out := make([]E, len(words))
	for i, w := range words {
		out[i] = E(w)
	}
	return out
}
