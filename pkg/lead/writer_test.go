package lead

import "testing"

// A file in which every row is rejected takes no memory for each row: the writer keeps fewer than twice as many descriptions as
// a report has, and the report has the first rows of the file, in any order of the batches.
func TestRejectedRowsAreBounded(t *testing.T) {
	const rows = 10_000
	w := &writer{}
	for line := rows; line > 0; line-- {
		if w.reject(line, "x"); len(w.rep.Errors) >= 2*maxErrors {
			t.Fatalf("%d descriptions are kept", len(w.rep.Errors))
		}
	}
	rep := w.report()
	if rep.Rejected != rows || len(rep.Errors) != maxErrors || rep.Errors[0].Line != 1 || rep.Errors[maxErrors-1].Line != maxErrors {
		t.Errorf("%d rejected, %d described", rep.Rejected, len(rep.Errors))
	}
}
