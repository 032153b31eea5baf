// Command api is Herald's API server. Its settings are environment variables; `herald config` lists them.
package main

import (
	"os"

	"herald/pkg/app"
)

func main() { os.Exit(app.Main(app.RoleAPI, os.Args[1:])) }
