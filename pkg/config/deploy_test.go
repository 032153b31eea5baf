package config

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile("../../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The services of docker-compose.yml have minimal rights and no well-known password, and the first API key expires. The test reads the
// file; it needs no container engine.
func TestFaultTheComposeFile(t *testing.T) {
	file := text(t, "docker-compose.yml")
	if known := regexp.MustCompile(`\$\{[A-Z_]*(PASSWORD|KEY)[A-Z_]*(:?-[^}]*)?\}`).FindAllString(file, -1); len(known) > 0 {
		t.Errorf("secrets with defaults: %v", known)
	}
	head, services, _ := strings.Cut(file, "\nservices:\n")
	services, _, _ = strings.Cut(services, "\nvolumes:\n")
	names := regexp.MustCompile(`(?m)^  ([a-z]+):$`).FindAllStringSubmatchIndex(services, -1)
	if len(names) != 6 {
		t.Fatalf("%d services", len(names))
	}
	for i, at := range names {
		end := len(services)
		if i+1 < len(names) {
			end = names[i+1][0]
		}
		name, body := services[at[2]:at[3]], services[at[0]:end]
		if strings.Contains(body, "<<: *herald") {
			body += head
		}
		for _, want := range []string{"cap_drop: [ALL]", `security_opt: ["no-new-privileges:true"]`} {
			if !strings.Contains(body, want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
		for _, no := range []string{"privileged:", "cap_add", "user: root", "0.0.0.0:8080:", `"8080:`, `"5432:`, `"6379:`} {
			if strings.Contains(body, no) {
				t.Errorf("%s has %s", name, no)
			}
		}
		if name == "keys" && !regexp.MustCompile(`"--expires", "(24h|1d)"`).MatchString(body) {
			t.Error("the first key, which is in the log, does not expire within a day")
		}
		if strings.Contains(body, "*herald") && !strings.Contains(body, "DATABASE_URL: postgres://herald:${HERALD_DB_PASSWORD:?") {
			t.Errorf("%s does not connect as the role herald", name)
		}
	}
	if !strings.Contains(services, "POSTGRES_USER: postgres") || !strings.Contains(services, "./deploy/postgres:/docker-entrypoint-initdb.d:ro") {
		t.Error("herald's role is the superuser, or is not created")
	}
	script := text(t, "deploy/postgres/10-herald.sh")
	for _, want := range []string{"NOSUPERUSER", "NOCREATEDB", "NOCREATEROLE", "OWNER herald", "set -eu"} {
		if !strings.Contains(script, want) {
			t.Errorf("the script has no %s", want)
		}
	}
}
