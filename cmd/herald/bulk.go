package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"herald/pkg/client"
	"herald/pkg/message"
)

type bulkCmd struct {
	List   bulkListCmd   `cmd:"" help:"List bulks, newest first."`
	Show   bulkShowCmd   `cmd:"" help:"Show the state and the figures of a bulk."`
	Watch  bulkWatchCmd  `cmd:"" help:"Show the progress of a bulk until it has ended."`
	Pause  bulkPauseCmd  `cmd:"" help:"Pause a bulk. Deliveries in progress are completed."`
	Resume bulkResumeCmd `cmd:"" help:"Continue a paused bulk."`
	Cancel bulkCancelCmd `cmd:"" help:"Cancel a bulk. Messages that were not sent end as CANCELLED."`
}

type bulkListCmd struct {
	output
	Status        string    `help:"Only bulks with this status."`
	Name          string    `help:"Only bulks with this name."`
	Type          string    `help:"Only bulks over this type of channel: ${types}."`
	CreatedBy     string    `help:"Only bulks that were sent with the API key of this id." placeholder:"KEY-ID"`
	CreatedAfter  time.Time `help:"Only bulks created after this time, as in 2025-01-31T10:30:00Z."`
	CreatedBefore time.Time `help:"Only bulks created before this time."`
	Most          int       `default:"20" help:"Maximum number of bulks; 0: all."`
}

// Run lists bulks. With --json it prints one JSON object per line.
func (c *bulkListCmd) Run(ctx context.Context, api *client.Client) error {
	f := client.BulkFilter{
		Status: c.Status, Name: c.Name, Type: message.ChannelType(c.Type), CreatedBy: c.CreatedBy, CreatedAfter: c.CreatedAfter, CreatedBefore: c.CreatedBefore,
	}
	return listed(c.output, api.Bulks(ctx, f), c.Most, "BULK\tSTATUS\tTYPE\tLEADS\tSENT\tFAILED\tPENDING\tRATE\tCREATED\tNAME", func(b *client.Bulk) []any {
		return []any{
			b.BulkID, b.Status, b.ChannelType, b.TotalLeads, b.MessagesSent, b.MessagesFailed, b.MessagesPending, fmt.Sprintf("%.2f%%", b.SuccessRate),
			moment(b.CreatedAt), orDash(b.Name),
		}
	})
}

// orDash returns a text of a table; - for none.
func orDash(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

// moment formats a time of a table; - for none.
func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

// oneBulk contains the flags of commands that concern one bulk.
type oneBulk struct {
	output
	ID string `arg:"" help:"Id of the bulk."`
}

// with makes a call for the bulk and prints the state that the call returns.
func (c *oneBulk) with(ctx context.Context, api *client.Client, do func(*client.Client, context.Context, string) (*client.Bulk, error)) error {
	b, err := do(api, ctx, c.ID)
	if err != nil {
		return err
	}
	return c.show(b)
}

func (c *oneBulk) show(b *client.Bulk) error {
	if c.JSON {
		return printJSON(b)
	}
	fmt.Print(bulkText(b))
	return nil
}

// bulkText describes the state of a bulk in lines of text.
func bulkText(b *client.Bulk) string {
	var out strings.Builder
	fmt.Fprintf(&out, "bulk %s is %s\n", b.BulkID, b.Status)
	if b.Name != nil {
		fmt.Fprintf(&out, "  %s\n", strings.Map(printable, *b.Name))
	}
	fmt.Fprintf(&out, "  %d leads, %d sent, %d failed, %d pending: %.2f %%\n", b.TotalLeads, b.MessagesSent, b.MessagesFailed, b.MessagesPending, b.SuccessRate)
	for _, reason := range message.Reasons() {
		if n := b.FailureReasons[reason]; n > 0 {
			fmt.Fprintf(&out, "  %d %s\n", n, reason)
		}
	}
	if b.Channel != nil && b.Channel.State != "ACTIVE" {
		fmt.Fprintf(&out, "  its channel is %s\n", b.Channel.State)
	}
	return out.String()
}

type (
	bulkShowCmd   struct{ oneBulk }
	bulkPauseCmd  struct{ oneBulk }
	bulkResumeCmd struct{ oneBulk }
	bulkCancelCmd struct{ oneBulk }
	bulkWatchCmd  struct{ oneBulk }
)

// Run shows a bulk.
func (c *bulkShowCmd) Run(ctx context.Context, api *client.Client) error {
	return c.with(ctx, api, (*client.Client).Bulk)
}

// Run pauses a bulk.
func (c *bulkPauseCmd) Run(ctx context.Context, api *client.Client) error {
	return c.with(ctx, api, (*client.Client).PauseBulk)
}

// Run resumes a bulk.
func (c *bulkResumeCmd) Run(ctx context.Context, api *client.Client) error {
	return c.with(ctx, api, (*client.Client).ResumeBulk)
}

// Run cancels a bulk.
func (c *bulkCancelCmd) Run(ctx context.Context, api *client.Client) error {
	return c.with(ctx, api, (*client.Client).CancelBulk)
}

// Run watches a bulk. With --json it prints a JSON object per line, one for each change.
func (c *bulkWatchCmd) Run(ctx context.Context, api *client.Client) error {
	b, err := watch(ctx, api, c.ID, c.JSON)
	if err != nil || c.JSON {
		return err
	}
	return c.show(b)
}

// watch shows the progress of a bulk and returns its final state.
func watch(ctx context.Context, api *client.Client, id string, asJSON bool) (*client.Bulk, error) {
	var last *client.Bulk
	show := newProgress("messages", asJSON)
	for b, err := range api.WatchBulk(ctx, id) {
		if err != nil {
			return nil, err
		}
		last = b
		if asJSON {
			line, err := json.Marshal(b)
			if err != nil {
				return nil, err
			}
			fmt.Println(string(line))
		}
		show(b.MessagesSent+b.MessagesFailed, b.TotalLeads)
	}
	return last, nil
}
