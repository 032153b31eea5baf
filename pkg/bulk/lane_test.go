package bulk

import "testing"

// Two runs of a channel may read the same free rest of its window before either reserves tasks.
func TestReserveNeverExceedsTheWindow(t *testing.T) {
	t.Parallel()
	r := NewRunner(RunnerDeps{})
	l := &lane{window: 20}
	first, second := &bulkRun{runner: r, lane: l}, &bulkRun{runner: r, lane: l}
	for _, step := range []struct {
		run              *bulkRun
		asks, want       int64
		ofRun, ofChannel int64
	}{
		{first, 15, 15, 15, 15},
		{second, 15, 5, 5, 20},
		{second, 1, 0, 5, 20},
		{first, 0, 0, 15, 20},
	} {
		got := step.run.reserve(step.asks)
		if got != step.want || step.run.inFlight != step.ofRun || l.inFlight != step.ofChannel {
			t.Errorf("reserve %d: %d, %d of the run, %d of the channel; want %+v", step.asks, got, step.run.inFlight, l.inFlight, step)
		}
	}
	l.window = 10 // the rate of the channel was reduced
	if got := first.reserve(1); got != 0 || l.inFlight != 20 {
		t.Errorf("reserved %d over a window that became smaller, %d in flight", got, l.inFlight)
	}
}
