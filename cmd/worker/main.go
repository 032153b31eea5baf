// Command worker is one process of Herald's worker fleet; any number of them share the work. Its settings are
// environment variables; `herald config` lists them.
package main

import (
	"os"

	"herald/pkg/app"
)

func main() { os.Exit(app.Main(app.RoleWorker, os.Args[1:])) }
