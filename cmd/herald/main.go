// Command herald is all of Herald in one process on embedded parts, and the operator's command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"herald/pkg/app"
	"herald/pkg/message"
)

type cli struct {
	Demo      demoCmd      `cmd:"" help:"Start everything with demo data, send the examples and a bulk, then serve on."`
	Serve     serveCmd     `cmd:"" help:"Start everything in one process, on a file that stays."`
	Send      sendCmd      `cmd:"" help:"Send a message, or order a bulk, over the API."`
	Bulk      bulkCmd      `cmd:"" help:"List, show, watch, pause, resume and cancel bulks, over the API."`
	Channels  channelsCmd  `cmd:"" help:"List, register, pause, resume and delete channels, over the API."`
	Leads     leadsCmd     `cmd:"" help:"Import leads, over the API."`
	Simulator simulatorCmd `cmd:"" help:"Serve the providers' simulator alone, for tests and benchmarks."`
	Migrate   migrateCmd   `cmd:"" help:"Bring the database's schema up to date, or show how it stands."`
	Bench     benchCmd     `cmd:"" help:"Measure a deployment: one of its own, or the one at HERALD_URL."`
	API       apiCmd       `cmd:"" name:"api" hidden:"" help:"Serve the API, like the program api."`
	Worker    workerCmd    `cmd:"" hidden:"" help:"Work, like the program worker."`
	Keys      keysCmd      `cmd:"" help:"Make, list and revoke API keys, on the database itself."`
	Reseal    resealCmd    `cmd:"" help:"Seal every channel's credentials with the present master key."`
	OpenAPI   openapiCmd   `cmd:"" name:"openapi" help:"Print the OpenAPI document of the API."`
	Config    configCmd    `cmd:"" help:"Show every setting with its meaning, default and current value."`
}

// errUsage marks an error that is the caller's.
var errUsage = errors.New("wrong usage")

func main() { os.Exit(run(os.Args[1:])) }

// typeVars are the variables of help texts that name channel types: all of them, and those that have a field.
func typeVars() kong.Vars {
	vars := kong.Vars{"types": strings.ToLower(message.ChannelTypeList())}
	for _, field := range []string{"subject", "html_content", "media_urls", "image_url"} {
		vars[field+"_types"] = strings.ToLower(message.TypeList(message.TypesWith(field), "and"))
	}
	return vars
}

func run(args []string) int {
	var c cli
	exited := -1
	parser, err := kong.New(&c, kong.Name("herald"), kong.Description("Herald sends a message, or a message to everybody who fits a description."),
		typeVars(), kong.UsageOnError(), kong.Exit(func(code int) { exited = code }))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return app.ExitFailed
	}
	kctx, err := parser.Parse(args)
	if exited >= 0 {
		return exited // --help
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "herald:", err)
		return app.ExitUsage
	}
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as it is under nohup
		ends = append(ends, syscall.SIGHUP) // the terminal is gone; what was started would outlive us
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	kctx.BindTo(ctx, (*context.Context)(nil))
	if err := kctx.BindToProvider(remote); err != nil {
		fmt.Fprintln(os.Stderr, "herald:", err)
		return app.ExitFailed
	}
	switch err := kctx.Run(); {
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "herald:", err)
		return app.ExitUsage
	case err != nil:
		fmt.Fprintln(os.Stderr, "herald:", err)
		return app.ExitFailed
	}
	return app.ExitDone
}
