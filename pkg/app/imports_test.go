package app_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) map[string]goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps", "herald/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string]goPackage{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// ours says what each package may import of ours. A package that is not in the table is free to import anything.
var ours = map[string][]string{
	"message":          {},
	"wire":             {"message"},
	"batch":            {},
	"fault":            {},
	"redact":           {},
	"version":          {},
	"dates":            {},
	"contactfile":      {},
	"access":           {"message"},
	"contract":         {"message", "access"},
	"client":           {"contract", "message"},
	"render":           {"dates", "message"},
	"audience":         {"dates", "message", "wire"},
	"lead":             {"audience", "contactfile", "dates", "message", "wire"},
	"channel":          {"message", "seal"},
	"seal":             {},
	"stats":            {"message"},
	"delivery":         {"message", "access", "render", "channel", "stats", "fault"},
	"bulk":             {"message", "access", "audience", "render", "channel", "delivery", "stats", "fault"},
	"redisconn":        {"message"},
	"counters":         {"batch", "message", "redisconn", "stats"},
	"ratelimit":        {"access", "channel", "delivery", "redisconn"},
	"queue":            {"bulk", "message", "queue/asynqfast", "queue/asynqredis", "redisconn"},
	"queue/asynqfast":  {"batch", "queue/asynqredis"},
	"queue/asynqredis": {},
	"provider":         {"message", "channel", "delivery", "provider/transport", "redact", "render"},

	"event":         {"message"},
	"store":         {"access", "audience", "bulk", "channel", "event", "message", "stats"},
	"store/search":  {"audience", "message", "store", "wire"},
	"store/records": {"access", "audience", "bulk", "channel", "event", "lead", "message", "seal", "stats", "store", "store/search"},
	"store/ledger":  {"access", "batch", "bulk", "channel", "delivery", "event", "message", "stats", "store"},

	"provider/sendgrid":  {"message", "channel", "delivery", "provider", "provider/transport", "render"},
	"provider/twilio":    {"message", "channel", "delivery", "provider", "provider/transport", "render"},
	"provider/instagram": {"message", "channel", "delivery", "provider", "provider/transport", "render"},
	"provider/simulator": {},
	"provider/transport": {},
}

var domain = []string{"message", "wire", "access", "render", "audience", "lead", "channel", "stats", "delivery", "bulk", "event"}

// outside are the packages that the domain imports neither directly nor through another package.
var outside = []string{"net/http", "github.com/labstack/echo", "github.com/hibiken/asynq", "gorm.io", "github.com/redis/go-redis",
	"github.com/sendgrid", "github.com/twilio", "github.com/prometheus"}

// storePackages are the packages that talk to the database.
var storePackages = []string{"herald/pkg/store", "herald/pkg/store/search", "herald/pkg/store/records", "herald/pkg/store/ledger"}

// redisPackages are the packages that call Redis. pkg/app passes connections to them, and pkg/bench empties the Redis that it
// started.
var redisPackages = []string{"herald/pkg/app", "herald/pkg/bench", "herald/pkg/counters", "herald/pkg/queue", "herald/pkg/queue/asynqfast", "herald/pkg/queue/asynqredis",
	"herald/pkg/ratelimit", "herald/pkg/redisconn", "herald/pkg/redisconn/redistest", "herald/pkg/testenv"}

func TestImportRules(t *testing.T) {
	all := packages(t)
	for name, allowed := range ours {
		p, ok := all["herald/pkg/"+name]
		if !ok {
			t.Errorf("there is no package %s", name)
		}
		for _, dep := range p.Imports {
			if short, ok := strings.CutPrefix(dep, "herald/pkg/"); ok && !slices.Contains(allowed, short) {
				t.Errorf("%s imports %s", name, short)
			}
		}
	}
	for _, name := range domain {
		for _, dep := range all["herald/pkg/"+name].Deps {
			for _, o := range outside {
				if dep == o || strings.HasPrefix(dep, o+"/") {
					t.Errorf("%s reaches %s", name, dep)
				}
			}
		}
	}
	for name, rule := range map[string]struct {
		forbidden string
		except    []string
	}{
		"Echo":      {"github.com/labstack/echo", []string{"herald/api", "herald/api/request"}},
		"GORM":      {"gorm.io", storePackages},
		"Asynq":     {"github.com/hibiken/asynq", []string{"herald/pkg/queue", "herald/pkg/queue/asynqfast", "herald/worker"}},
		"Redis":     {"github.com/redis/go-redis", redisPackages},
		"the API":   {"herald/api", []string{"herald/pkg/app", "herald/api"}},
		"the store": {"herald/pkg/store", append([]string{"herald/pkg/app", "herald/cmd/herald", "herald/pkg/store/storetest"}, storePackages...)},
		"the queue": {"herald/pkg/queue", []string{"herald/pkg/app", "herald/pkg/queue", "herald/pkg/queue/asynqfast", "herald/worker"}},
	} {
		for _, p := range all {
			if !strings.HasPrefix(p.ImportPath, "herald/") || slices.Contains(rule.except, p.ImportPath) {
				continue
			}
			for _, dep := range p.Imports {
				if dep == rule.forbidden || strings.HasPrefix(dep, rule.forbidden+"/") {
					t.Errorf("%s imports %s", p.ImportPath, name)
				}
			}
		}
	}
}
