package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"herald/pkg/client"
)

type leadsCmd struct {
	Import leadsImportCmd `cmd:"" help:"Import leads from a CSV or NDJSON file."`
	List   leadsListCmd   `cmd:"" help:"List the leads that match all of the flags."`
	Show   leadsShowCmd   `cmd:"" help:"Print a lead as JSON."`
	Change leadsChangeCmd `cmd:"" help:"Change a lead and print it as JSON."`
}

type leadsShowCmd struct {
	ID   string `arg:"" help:"Id of the lead."`
	ETag bool   `name:"etag" help:"Print the ETag of the lead instead, for --if-match."`
}

// Run prints a lead.
func (c *leadsShowCmd) Run(ctx context.Context, api *client.Client) error {
	var etag string
	l, err := api.Lead(ctx, c.ID, client.ETag(&etag))
	if err != nil {
		return err
	}
	if c.ETag {
		fmt.Println(etag)
		return nil
	}
	return printJSON(l)
}

type leadsChangeCmd struct {
	ID        string            `arg:"" help:"Id of the lead."`
	Set       map[string]string `help:"New value of a text field; nothing empties it. Repeatable." placeholder:"FIELD=VALUE" mapsep:"none"`
	Custom    map[string]string `help:"New value of a custom field, as JSON or as text; nothing removes it. Repeatable." placeholder:"NAME=VALUE" mapsep:"none"`
	AddTag    []string          `help:"Tag to add. Repeatable." sep:"none"`
	RemoveTag []string          `help:"Tag to remove. Repeatable." sep:"none"`
	IfMatch   string            `help:"Change the lead only if it has this ETag." placeholder:"ETAG"`
}

// Run changes a lead.
func (c *leadsChangeCmd) Run(ctx context.Context, api *client.Client) error {
	var options []client.CallOption
	if c.IfMatch != "" {
		options = append(options, client.IfMatch(c.IfMatch))
	}
	l, err := api.ChangeLead(ctx, c.ID, c.patch(), options...)
	if err != nil {
		return err
	}
	return printJSON(l)
}

func (c *leadsChangeCmd) patch() client.Patch {
	p := client.Patch{}
	for name, v := range c.Set {
		if p[name] = nil; v != "" {
			p[name] = v
		}
	}
	if len(c.Custom) > 0 {
		custom := make(map[string]any, len(c.Custom))
		for name, v := range c.Custom {
			switch {
			case v == "":
				custom[name] = nil
			case json.Valid([]byte(v)):
				custom[name] = json.RawMessage(v)
			default:
				custom[name] = v
			}
		}
		p["custom_fields"] = custom
	}
	if len(c.AddTag) > 0 {
		p["add_tags"] = c.AddTag
	}
	if len(c.RemoveTag) > 0 {
		p["remove_tags"] = c.RemoveTag
	}
	return p
}

type leadsListCmd struct {
	output
	Email         string    `help:"Email address, in any spelling."`
	Phone         string    `help:"Phone number, in any spelling."`
	InstagramID   string    `help:"Instagram-scoped user id."`
	AssigneeID    string    `help:"Id of the user to which the lead is assigned."`
	Tag           string    `help:"Tag."`
	Status        string    `help:"Status."`
	Search        string    `help:"Words in name, email, company or phone."`
	CreatedAfter  time.Time `help:"Time, for example 2025-01-31T10:30:00Z."`
	CreatedBefore time.Time `help:"Time, for example 2025-01-31T10:30:00Z."`
	UpdatedAfter  time.Time `help:"Time, for example 2025-01-31T10:30:00Z."`
	Limit         int       `default:"50" help:"Print at most this many leads; 0 for all."`
}

// Run lists leads in the order of their ids.
func (c *leadsListCmd) Run(ctx context.Context, api *client.Client) error {
	found := api.FindLeads(ctx, client.LeadFilter{
		Email: c.Email, Phone: c.Phone, InstagramID: c.InstagramID, AssigneeID: c.AssigneeID, Tag: c.Tag, Status: c.Status, Search: c.Search,
		CreatedAfter: c.CreatedAfter, CreatedBefore: c.CreatedBefore, UpdatedAfter: c.UpdatedAfter,
	})
	return listed(c.output, found, c.Limit, "ID\tFIRST NAME\tLAST NAME\tEMAIL\tPHONE\tTAGS", func(l *client.Lead) []any {
		return []any{l.ID, textOf(l.FirstName), textOf(l.LastName), textOf(l.Email), textOf(l.Phone), strings.Join(l.Tags, "; ")}
	})
}

// textOf returns a text that may be absent.
func textOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

type leadsImportCmd struct {
	output
	File         string            `arg:"" help:"The file; - for standard input."`
	Format       string            `help:"csv or ndjson; default: from the file's extension."`
	DryRun       bool              `help:"Report what the import would do and write nothing."`
	Map          map[string]string `help:"What a column of a CSV file becomes: a field, custom_fields.NAME, or nothing to leave it out. Repeatable." placeholder:"COLUMN=FIELD" mapsep:"none"`
	Charset      string            `help:"Encoding of the file, for example windows-1252; default: UTF-8, or what a byte order mark says."`
	Delimiter    string            `help:"Character between the cells; default: found in the header."`
	Dates        string            `help:"Order of dates like 1/2/2024: dmy or mdy." enum:",dmy,mdy" default:""`
	Timezone     string            `help:"Time zone of dates without one, for example Europe/Berlin; default: UTC."`
	TagSeparator string            `help:"Text between the tags in a cell; default: a semicolon, or a comma if the file has no semicolon."`
}

var formats = map[string]client.Format{"csv": client.CSV, "tsv": client.CSV, "txt": client.CSV, "ndjson": client.NDJSON, "jsonl": client.NDJSON}

// Run imports a file. Rejected rows are listed and make the exit code 1; the other rows are imported.
func (c *leadsImportCmd) Run(ctx context.Context, api *client.Client) error {
	name := c.Format
	if name == "" {
		name = strings.TrimPrefix(filepath.Ext(c.File), ".")
	}
	format, ok := formats[strings.ToLower(name)]
	if !ok {
		return fmt.Errorf("%w: --format must be csv or ndjson", errUsage)
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
	show := newProgress("bytes", c.JSON)
	report, err := api.ImportLeadsWith(ctx, format, client.ImportOptions{
		Columns: c.Map, Charset: c.Charset, Delimiter: c.Delimiter, Dates: c.Dates, Timezone: c.Timezone, TagSeparator: c.TagSeparator, DryRun: c.DryRun,
	}, &counted{file, func(n int64) { show(n, max(size, n)) }, 0})
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(report)
	} else {
		err = c.print(report)
	}
	if err == nil && report.Rejected > 0 {
		err = fmt.Errorf("%d rows were rejected", report.Rejected)
	}
	return err
}

// print shows what the columns became, the counts, and on standard error what is wrong with rows and cells.
func (c *leadsImportCmd) print(r *client.ImportReport) error {
	if len(r.Columns) > 0 {
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "COLUMN\tFIELD")
		for _, column := range r.Columns {
			field := "(left out)"
			if column.Field != nil {
				field = *column.Field
			}
			fmt.Fprintf(w, "%s\t%s\n", column.Name, field)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	did := ""
	if r.DryRun {
		did = " (dry run: nothing was written)"
	}
	fmt.Printf("%d rows: %d imported, %d updated, %d unchanged, %d rejected, %d warnings%s\n", r.Rows, r.Imported, r.Updated, r.Unchanged, r.Rejected, r.WarningCount, did)
	for _, e := range r.Errors {
		fmt.Fprintf(os.Stderr, "line %d: %s\n", e.Line, e.Msg)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(os.Stderr, "line %d: warning: %s %s\n", w.Line, w.Column, w.Msg)
	}
	return nil
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
