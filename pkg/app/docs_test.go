package app_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	promise      = regexp.MustCompile(`(?m)^\| [A-Z][^|]*\. \| (.*) \|$`)
	packageNames = regexp.MustCompile("`((?:pkg/)?[a-z/]+)`")
	testNames    = regexp.MustCompile("`(Test\\w+)…?`")
)

// Each promise of README.md names tests, and each of them exists in the package that the row names.
func TestEveryPromiseNamesItsTests(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := promise.FindAllSubmatch(page, -1)
	if len(rows) < 25 {
		t.Fatalf("README.md has %d promises; is the table's form another one?", len(rows))
	}
	for _, row := range rows {
		cell, dir, named := string(row[1]), "", 0
		for _, word := range regexp.MustCompile("`[^`]+`").FindAllString(cell, -1) {
			if m := testNames.FindStringSubmatch(word); m != nil {
				named++
				if !declares(t, dir, m[1], strings.Contains(word, "…")) {
					t.Errorf("%s is not in %s", m[1], dir)
				}
			} else if m := packageNames.FindStringSubmatch(word); m != nil {
				dir = m[1]
			}
		}
		if named == 0 {
			t.Errorf("no test: %s", row[0])
		}
	}
}

// declares reports whether a test file in a folder, not below it, declares a test; with prefix, one whose name begins so.
func declares(t *testing.T, dir, test string, prefix bool) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	end := `\(`
	if prefix {
		end = `\w*\(`
	}
	want := regexp.MustCompile(`(?m)^func ` + test + end)
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if want.Match(src) {
			return true
		}
	}
	return false
}
