package app_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"herald/pkg/app"
)

// long makes the failure matrix take its time: the intervals of a real deployment where they matter, more leads, more
// deaths.
var long = flag.Bool("faults.long", false, "run the long form of the failure matrix")

// quick is the intervals of the short form. A claim must outlast a slow machine's pauses.
func quick() app.Timing {
	t := app.DefaultTiming()
	t.Delivery.Claim, t.Delivery.Stale, t.Delivery.Watch = 6*time.Second, 3*time.Second, 2*time.Second
	t.Delivery.Backoff, t.Delivery.PausedRetry = 200*time.Millisecond, time.Second
	t.Bulk.Poll, t.Bulk.Lease, t.Bulk.Reconcile = 200*time.Millisecond, 3*time.Second, time.Second
	t.Bulk.Stall, t.Bulk.Retry = time.Second, 200*time.Millisecond
	t.Sweep, t.Clean = 500*time.Millisecond, 2*time.Second
	return t
}

// quickly is the environment of programs with other intervals than a real deployment's.
func quickly(t *testing.T, timing app.Timing) []string {
	t.Helper()
	b, err := json.Marshal(timing)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"HERALD_TIMING=" + string(b), "HERALD_UNKNOWN_HOLD=1s"}
}

// faulty deploys the programs that can be told where to die, with short intervals.
func faulty(t *testing.T, p plan) *system {
	t.Helper()
	p.programs = faultyBinaries
	p.env = append(quickly(t, quick()), p.env...)
	return deployAs(t, p)
}

// patientClaims is quick with the claims of a real deployment, which last longer than a database is away.
func patientClaims() app.Timing {
	timing, usual := quick(), app.DefaultTiming().Delivery
	timing.Delivery.Claim, timing.Delivery.Stale = usual.Claim, usual.Stale
	return timing
}

// at is the setting that lets a process die, or freeze, the n-th time that it passes a point.
func at(point, action string, n int) string {
	return fmt.Sprintf("HERALD_FAULT=%s=%s@%d", point, action, n)
}

func size() int {
	if *long {
		return 5_000
	}
	return 300
}

func pick[T any](short, whole T) T {
	if *long {
		return whole
	}
	return short
}

// row is a line of the failure matrix. It deploys what it needs, lets something fail, and returns what was seen.
type row struct {
	name string
	run  func(t *testing.T) string
}

// together is how many rows run at the same time. Most of a row's time is waiting: for a claim, a lease or a back-off
// to end. Rows that measure a rate run after the others, which would take their processors.
const together = 12

// TestFailureMatrix kills or freezes each component, or makes it answer wrongly, at the worst moment, and then checks the
// promises. The flag -faults.long selects the long form; -v shows the table of the results.
func TestFailureMatrix(t *testing.T) {
	t.Parallel()
	// The rows that wait longest come first.
	table := append(runRows(t, slices.Concat(redisRows, workerRows, postgresRows, providerRows, userRows, apiRows)), runRows(t, rateRows)...)
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what dies, when\tseconds\twhat was seen")
	for _, line := range table {
		if line.seen != "" { // it ran
			fmt.Fprintf(w, "%s\t%.0f\t%s\n", line.name, line.took.Seconds(), line.seen)
		}
	}
	_ = w.Flush()
	t.Log("\n" + text.String())
}

// result is what came of a row.
type result struct {
	name, seen string
	took       time.Duration
}

// runRows runs rows beside each other and returns their results in the same order.
func runRows(t *testing.T, rows []row) []result {
	results := make([]result, len(rows))
	next := make(chan int)
	var wg sync.WaitGroup
	for range together {
		wg.Go(func() {
			for i := range next {
				t.Run(rows[i].name, func(t *testing.T) { runRow(t, rows[i], &results[i]) })
			}
		})
	}
	for i := range rows {
		next <- i
	}
	close(next)
	wg.Wait()
	return results
}

// runRow fills in the result as it goes: a row that fails ends its goroutine.
func runRow(t *testing.T, r row, res *result) {
	began := time.Now()
	res.name, res.seen = r.name, "FAILED"
	defer func() { res.took = time.Since(began) }()
	if seen := r.run(t); !t.Failed() {
		res.seen = seen
	}
}
