package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"herald/pkg/client"
)

type leadsCmd struct {
	Import leadsImportCmd `cmd:"" help:"Import leads from a CSV or NDJSON file."`
}

type leadsImportCmd struct {
	output
	File   string `arg:"" help:"File to import; - for standard input."`
	Format string `help:"csv or ndjson. Default: derived from the extension of the file."`
}

var formats = map[string]client.Format{"csv": client.CSV, "ndjson": client.NDJSON, "jsonl": client.NDJSON}

// Run imports a file. Rejected rows are listed and make the exit code 1; all other rows are imported.
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
		err = fmt.Errorf("import %s: rejected rows: %d", c.File, report.Rejected)
	}
	return err
}

// counted reports the number of bytes that were read.
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
