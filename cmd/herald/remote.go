package main

import (
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"strings"
	"text/tabwriter"

	"herald/pkg/client"
	"herald/pkg/message"
)

// remote returns a client of the API at HERALD_URL.
func remote() (*client.Client, error) {
	cfg, err := parse()
	if err != nil {
		return nil, err
	}
	return client.New(cfg.URL, client.WithKey(string(cfg.APIKey)))
}

// output contains the flags that select the form of a command's output.
type output struct {
	JSON bool `help:"Print JSON."`
}

// listed prints at most most items of a list, 0 for all: each as a line of JSON or as a row of a table.
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

// printable removes control characters: values come from other people, and escape sequences would control the terminal.
func printable(r rune) rune {
	if message.IsControl(r) {
		return -1
	}
	return r
}
