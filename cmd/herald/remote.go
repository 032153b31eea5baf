package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"herald/pkg/client"
	"herald/pkg/message"
)

// remote makes a client of the API that HERALD_URL names.
func remote() (*client.Client, error) {
	cfg, err := parse()
	if err != nil {
		return nil, err
	}
	return client.New(cfg.URL, client.WithKey(string(cfg.APIKey)))
}

// output is how a command shows what it found.
type output struct {
	JSON bool `help:"Print JSON."`
}

// listed prints the items of a list: each as a line of JSON, or as a row of a table.
func listed[T any](o output, items iter.Seq2[T, error], most int, head string, row func(*T) []any) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	if !o.JSON {
		fmt.Fprintln(w, head)
	}
	n := 0
	for item, err := range items {
		if err != nil {
			return err
		}
		if n++; most > 0 && n > most {
			break
		}
		if o.JSON {
			b, err := json.Marshal(item)
			if err != nil {
				return err
			}
			fmt.Println(string(b))
			continue
		}
		cells := row(&item)
		for i := range cells {
			cells[i] = strings.Map(printable, fmt.Sprint(cells[i]))
		}
		fmt.Fprintf(w, strings.Repeat("%s\t", len(cells))+"\n", cells...)
	}
	return w.Flush()
}

// printable keeps characters that would steer a terminal out of a table.
func printable(r rune) rune {
	if message.IsControl(r) {
		return -1
	}
	return r
}

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
func (c *bulkListCmd) Run(ctx context.Context) error {
	api, err := remote()
	if err != nil {
		return err
	}
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
func (c *oneBulk) with(ctx context.Context, do func(*client.Client, context.Context, string) (*client.Bulk, error)) error {
	api, err := remote()
	if err != nil {
		return err
	}
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
func (c *bulkShowCmd) Run(ctx context.Context) error { return c.with(ctx, (*client.Client).Bulk) }

// Run pauses a bulk.
func (c *bulkPauseCmd) Run(ctx context.Context) error { return c.with(ctx, (*client.Client).PauseBulk) }

// Run resumes a bulk.
func (c *bulkResumeCmd) Run(ctx context.Context) error {
	return c.with(ctx, (*client.Client).ResumeBulk)
}

// Run cancels a bulk.
func (c *bulkCancelCmd) Run(ctx context.Context) error {
	return c.with(ctx, (*client.Client).CancelBulk)
}

// Run watches a bulk. With --json it prints how it stands in a line, whenever that has changed.
func (c *bulkWatchCmd) Run(ctx context.Context) error {
	api, err := remote()
	if err != nil {
		return err
	}
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

type channelsCmd struct {
	List   channelsListCmd   `cmd:"" default:"1" help:"List the channels."`
	Create channelsCreateCmd `cmd:"" help:"Register a channel."`
	Pause  channelsPauseCmd  `cmd:"" help:"Stop sending over a channel."`
	Resume channelsResumeCmd `cmd:"" help:"Send over a channel again."`
	Delete channelsDeleteCmd `cmd:"" help:"Delete a channel that nothing is to go over."`
}

type channelsListCmd struct{ output }

// Run lists the channels.
func (c *channelsListCmd) Run(ctx context.Context) error {
	api, err := remote()
	if err != nil {
		return err
	}
	return listed(c.output, api.Channels(ctx), 0, "ID\tTYPE\tNAME\tSENDER\tDEFAULT\tSTATE", func(ch *client.Channel) []any {
		state := ch.State
		if ch.StateReason != nil {
			state += ": " + *ch.StateReason
		}
		return []any{ch.ID, ch.Type, ch.Name, ch.Sender, ch.Default, state}
	})
}

type channelsCreateCmd struct {
	File string `arg:"" default:"-" help:"A file with the channel as JSON, as the API takes it; - for standard input, so that its credentials are no argument."`
}

// Run registers a channel.
func (c *channelsCreateCmd) Run(ctx context.Context) error {
	b, err := readFile(c.File)
	if err != nil {
		return err
	}
	var ch client.NewChannel
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&ch); err != nil {
		return fmt.Errorf("%w: the channel: %w", errUsage, err)
	}
	api, err := remote()
	if err != nil {
		return err
	}
	made, err := api.CreateChannel(ctx, ch)
	if err != nil {
		return err
	}
	return printJSON(made)
}

func readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(name) //nolint:gosec // the file that the user names
}

// oneChannel is a command about one channel.
type oneChannel struct {
	output
	ID   string `arg:"" help:"The channel's id."`
	Type string `arg:"" help:"Its type: email, sms or instagram_dm."`
}

func (c *oneChannel) typ() (message.Type, error) {
	t, ok := message.ParseType(c.Type)
	if !ok {
		return "", fmt.Errorf("%w: the type is email, sms or instagram_dm", errUsage)
	}
	return t, nil
}

func (c *oneChannel) change(ctx context.Context, p client.Patch) error {
	t, err := c.typ()
	if err != nil {
		return err
	}
	api, err := remote()
	if err != nil {
		return err
	}
	ch, err := api.ChangeChannel(ctx, c.ID, t, p)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(ch)
	}
	fmt.Printf("channel %s of type %s is %s\n", ch.ID, ch.Type, ch.State)
	return nil
}

type channelsPauseCmd struct {
	oneChannel
	Reason string `help:"Why, for people."`
}

// Run pauses a channel.
func (c *channelsPauseCmd) Run(ctx context.Context) error {
	return c.change(ctx, client.Patch{"state": "PAUSED", "state_reason": c.Reason})
}

type channelsResumeCmd struct{ oneChannel }

// Run resumes a channel.
func (c *channelsResumeCmd) Run(ctx context.Context) error {
	return c.change(ctx, client.Patch{"state": "ACTIVE"})
}

type channelsDeleteCmd struct{ oneChannel }

// Run deletes a channel.
func (c *channelsDeleteCmd) Run(ctx context.Context) error {
	t, err := c.typ()
	if err != nil {
		return err
	}
	api, err := remote()
	if err != nil {
		return err
	}
	if err := api.DeleteChannel(ctx, c.ID, t); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(map[string]string{"deleted": c.ID})
	}
	fmt.Println("deleted", c.ID)
	return nil
}

type leadsCmd struct {
	Import leadsImportCmd `cmd:"" help:"Import leads from a CSV or NDJSON file."`
}

type leadsImportCmd struct {
	output
	File   string `arg:"" help:"The file; - for standard input."`
	Format string `help:"csv or ndjson; by the file's ending without it."`
}

var formats = map[string]client.Format{"csv": client.CSV, "ndjson": client.NDJSON, "jsonl": client.NDJSON}

// Run imports a file. Rows that are no lead are named and make the exit code 1; the others are imported.
func (c *leadsImportCmd) Run(ctx context.Context) error {
	name := c.Format
	if name == "" {
		name = strings.TrimPrefix(filepath.Ext(c.File), ".")
	}
	format, ok := formats[strings.ToLower(name)]
	if !ok {
		return fmt.Errorf("%w: --format is csv or ndjson", errUsage)
	}
	file, size := os.Stdin, int64(0)
	if c.File != "-" {
		var err error
		if file, err = os.Open(c.File); err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // it was only read
		if st, err := file.Stat(); err == nil {
			size = st.Size()
		}
	}
	api, err := remote()
	if err != nil {
		return err
	}
	show := newProgress("bytes", c.JSON)
	report, err := api.ImportLeads(ctx, format, &counted{file, func(n int64) { show(n, max(size, n)) }, 0})
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(report)
	} else {
		fmt.Printf("%d imported, %d updated, %d rejected\n", report.Imported, report.Updated, report.Rejected)
		for _, e := range report.Errors {
			fmt.Fprintf(os.Stderr, "line %d: %s\n", e.Line, e.Msg)
		}
	}
	if err == nil && report.Rejected > 0 {
		err = fmt.Errorf("%d rows are no lead", report.Rejected)
	}
	return err
}

// counted tells how much was read.
type counted struct {
	r    io.Reader
	tell func(n int64)
	n    int64
}

// Read implements io.Reader.
func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}

type sendCmd struct {
	output
	File    string   `short:"f" help:"A file with the whole request as JSON, - for standard input. Without it, a single is made of the other flags."`
	To      string   `help:"The recipient."`
	Lead    string   `help:"The id of the lead that it goes to."`
	Type    string   `help:"email, sms or instagram_dm; by the recipient without it."`
	Channel string   `help:"The channel's id; the default one without it."`
	Subject string   `help:"The subject of an email."`
	Text    string   `help:"The text."`
	HTML    string   `help:"The HTML of an email."`
	Media   []string `help:"Addresses of an SMS's media."`
	Image   string   `help:"The address of an Instagram message's picture."`
	Purpose string   `help:"transactional, marketing or notification."`
	Key     string   `help:"An Idempotency-Key of your own, so that running the command again sends nothing twice."`
	Watch   bool     `help:"Of a bulk: watch it until it is over."`
}

func (c *sendCmd) request() ([]byte, error) {
	if c.File != "" {
		return readFile(c.File)
	}
	if c.To == "" && c.Lead == "" {
		return nil, fmt.Errorf("%w: --to, --lead or --file is needed", errUsage)
	}
	return json.Marshal(client.SendRequest{
		SenderType: c.Type, SenderIdentifier: c.Channel, MessageType: message.Purpose(c.Purpose), MessageData: client.MessageData{
			Recipient: c.To, ContactID: c.Lead, Subject: c.Subject, Content: c.Text, HTMLContent: c.HTML, MediaURLs: c.Media, ImageURL: c.Image,
		},
	})
}

// Run sends. A single that was not sent makes the exit code 1.
func (c *sendCmd) Run(ctx context.Context) error {
	body, err := c.request()
	if err != nil {
		return err
	}
	api, err := remote()
	if err != nil {
		return err
	}
	var options []client.SendOption
	if c.Key != "" {
		options = append(options, client.UnderKey(c.Key))
	}
	answer, err := api.SendJSON(ctx, body, options...)
	if err != nil {
		return err
	}
	var kind struct {
		BulkID  string `json:"bulk_id"`
		Success *bool  `json:"success"`
	}
	if err := json.Unmarshal(answer, &kind); err != nil {
		return err
	}
	if kind.BulkID != "" {
		return c.bulk(ctx, api, kind.BulkID, answer)
	}
	fmt.Println(indent(answer))
	if kind.Success != nil && !*kind.Success {
		return errors.New("the message was not sent")
	}
	return nil
}

// bulk shows a bulk that was ordered.
func (c *sendCmd) bulk(ctx context.Context, api *client.Client, id string, answer []byte) error {
	if !c.Watch {
		fmt.Println(indent(answer))
		return nil
	}
	if !c.JSON {
		fmt.Println("bulk", id)
	}
	b, err := watch(ctx, api, id, c.JSON)
	if err != nil || c.JSON {
		return err
	}
	fmt.Print(bulkText(b))
	return nil
}
