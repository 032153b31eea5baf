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
	Show   bulkShowCmd   `cmd:"" help:"Show how a bulk stands."`
	Watch  bulkWatchCmd  `cmd:"" help:"Watch a bulk until it is over."`
	Pause  bulkPauseCmd  `cmd:"" help:"Stop a bulk until it is resumed."`
	Resume bulkResumeCmd `cmd:"" help:"Let a paused bulk go on."`
	Cancel bulkCancelCmd `cmd:"" help:"End a bulk."`
}

type bulkListCmd struct {
	output
	Most int `default:"20" help:"How many; 0: all."`
}

// Run lists bulks. With --json it prints one in a line.
func (c *bulkListCmd) Run(ctx context.Context, api *client.Client) error {
	return listed(c.output, api.Bulks(ctx), c.Most, "BULK\tSTATUS\tLEADS\tSENT\tFAILED\tPENDING\tRATE\tCREATED", func(b *client.Bulk) []any {
		return []any{b.BulkID, b.Status, b.TotalLeads, b.MessagesSent, b.MessagesFailed, b.MessagesPending, fmt.Sprintf("%.2f%%", b.SuccessRate), moment(b.CreatedAt)}
	})
}

func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

// oneBulk is a command about one bulk.
type oneBulk struct {
	output
	ID string `arg:"" help:"The bulk's id."`
}

// with does something with the bulk and prints how it stands then.
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

// bulkText tells how a bulk stands, in words.
func bulkText(b *client.Bulk) string {
	var out strings.Builder
	fmt.Fprintf(&out, "bulk %s is %s\n", b.BulkID, b.Status)
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

// Run watches a bulk. With --json it prints how it stands in a line, whenever that has changed.
func (c *bulkWatchCmd) Run(ctx context.Context, api *client.Client) error {
	b, err := watch(ctx, api, c.ID, c.JSON)
	if err != nil || c.JSON {
		return err
	}
	return c.show(b)
}

// watch shows how a bulk goes on, and returns how it ended.
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
