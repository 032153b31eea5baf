// Command herald runs all of Herald in one process on embedded services, and is the operator's command line.
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
	"herald/pkg/version"
)

type cli struct {
	Demo      demoCmd      `cmd:"" help:"Start everything in one process with demo data, send examples and a bulk, and keep serving."`
	Serve     serveCmd     `cmd:"" help:"Start everything in one process, on a SQLite file."`
	Send      sendCmd      `cmd:"" help:"Send a single message or a bulk through the API."`
	Bulk      bulkCmd      `cmd:"" help:"List, show, watch, pause, resume and cancel bulks through the API."`
	Messages  messagesCmd  `cmd:"" help:"List messages through the API."`
	Channels  channelsCmd  `cmd:"" help:"List, register, pause, resume and delete channels through the API."`
	Leads     leadsCmd     `cmd:"" help:"Import, list and change leads through the API."`
	Simulator simulatorCmd `cmd:"" help:"Run the provider simulator alone, for tests and benchmarks."`
	Migrate   migrateCmd   `cmd:"" help:"Apply the migrations of the database, or show their status."`
	Bench     benchCmd     `cmd:"" help:"Measure a new deployment, or the one at HERALD_URL."`
	API       apiCmd       `cmd:"" name:"api" hidden:"" help:"Run the API, like the program api."`
	Worker    workerCmd    `cmd:"" hidden:"" help:"Run a worker, like the program worker."`
	Keys      keysCmd      `cmd:"" help:"Create, rotate, list and revoke API keys in the database."`
	Reseal    resealCmd    `cmd:"" help:"Seal all channel credentials with the current master key."`
	Version   versionCmd   `cmd:"" help:"Print the version of this program."`
	OpenAPI   openapiCmd   `cmd:"" name:"openapi" help:"Print the OpenAPI document of the API."`
	Config    configCmd    `cmd:"" help:"Show every setting with its meaning, default and current value."`

	Print kong.VersionFlag `name:"version" help:"Print the version of this program."`
}

// errUsage marks errors in arguments and settings: exit code 2.
var errUsage = errors.New("wrong usage")

func main() { os.Exit(run(os.Args[1:])) }

// typeVars are the variables of help texts that name channel types: all of them, and those that have a field.
func typeVars() kong.Vars {
	vars := kong.Vars{"types": strings.ToLower(message.ChannelTypeList()), "version": "herald " + version.Get().String()}
	for _, field := range []string{"subject", "html_content", "media_urls", "image_url", "reply_to", "headers", "attachments"} {
		vars[field+"_types"] = strings.ToLower(message.TypeList(message.TypesWith(field), "and"))
	}
	return vars
}

// run executes a command line and returns its exit code.
func run(args []string) int {
	var c cli
	exited := -1
	parser, err := kong.New(&c, kong.Name("herald"), kong.Description("Herald sends single messages, and bulks to all leads that match criteria."),
		typeVars(), kong.UsageOnError(), kong.Exit(func(code int) { exited = code }))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return app.ExitFailed
	}
	kctx, err := parser.Parse(args)
	if exited >= 0 {
		return exited // --help, --version
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "herald:", err)
		return app.ExitUsage
	}
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		ends = append(ends, syscall.SIGHUP) // the terminal was closed: the bench must stop the programs that it started
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
