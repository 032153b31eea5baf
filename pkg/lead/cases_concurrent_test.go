package lead_test

import (
	"flag"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"herald/pkg/testenv"
)

// importPeople makes TestCaseThirtyImportsOfTheSamePeople take longer files.
var importPeople = flag.Int("import.people", 300, "rows of each file that TestCaseThirtyImportsOfTheSamePeople imports")

// Thirty concurrent imports of the same new people, over two processes where the database allows it, make as many leads as one.
func TestCaseThirtyImportsOfTheSamePeople(t *testing.T) {
	const files = 30
	var file strings.Builder
	file.WriteString("Email,Phone,First Name\n")
	for i := range *importPeople {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&file, "p%d@example.com,,P\n", i)
		case 1:
			fmt.Fprintf(&file, ",+1415%07d,P\n", i)
		default:
			fmt.Fprintf(&file, "P%d@Example.com,+1415%07d,P\n", i, i)
		}
	}
	for name, processes := range map[string]int{"in one process": 1, "in two": 2} {
		t.Run(name, func(t *testing.T) {
			testenv.EachDatabase(t, func(t *testing.T, databaseURL string) {
				a, b := twoOn(t, databaseURL)
				var imported, unchanged atomic.Int64
				imports := make([]func(), files)
				for i := range imports {
					imports[i] = func() {
						rep := importCSV(t, []process{a, b}[i%processes], file.String())
						imported.Add(int64(rep.Imported))
						unchanged.Add(int64(rep.Unchanged))
					}
				}
				together(imports...)
				people := int64(*importPeople)
				if leads := int64(len(everyLead(t, a.store))); leads != people || imported.Load() != people || unchanged.Load() != (files-1)*people {
					t.Errorf("%d leads of %d people, %d imported, %d unchanged", leads, people, imported.Load(), unchanged.Load())
				}
			})
		})
	}
}
