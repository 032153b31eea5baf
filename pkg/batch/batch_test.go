package batch

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallsThatWaitShareARun(t *testing.T) {
	var sizes []int
	entered, release := make(chan bool), make(chan bool)
	g := New("x", nil, func(_ context.Context, items []int) ([]int, error) {
		sizes = append(sizes, len(items))
		if len(sizes) == 1 {
			entered <- true
			<-release
		}
		out := make([]int, len(items))
		for i, v := range items {
			out[i] = v * 10
		}
		return out, nil
	})
	var wg sync.WaitGroup
	call := func(v int) {
		wg.Go(func() {
			if got, err := g.Do(t.Context(), v); got != v*10 || err != nil {
				t.Errorf("%d: %d, %v", v, got, err)
			}
		})
	}
	call(0)
	<-entered
	for v := range 50 {
		call(v + 1)
	}
	wait(g, 50)
	close(release)
	wg.Wait()
	g.Close()
	if len(sizes) != 2 || sizes[1] != 50 {
		t.Errorf("runs of %v, want one of 1 and one of 50", sizes)
	}
}

var errBad = errors.New("bad item")

// With retryIndividually one bad item fails alone; without it the whole run fails.
func TestTheBadItemFailsAlone(t *testing.T) {
	for name, retry := range map[string]func(error) bool{"alone": func(err error) bool { return errors.Is(err, errBad) }, "together": nil} {
		entered, release := make(chan bool, 1), make(chan bool)
		first := true
		g := New("x", retry, func(_ context.Context, items []int) ([]int, error) {
			if first {
				first = false
				entered <- true
				<-release
			}
			for _, v := range items {
				if v == 3 {
					return nil, errBad
				}
			}
			return items, nil
		})
		errs := make([]error, 6)
		var wg sync.WaitGroup
		wg.Go(func() { _, errs[0] = g.Do(t.Context(), 0) })
		<-entered
		for v := 1; v < 6; v++ {
			wg.Go(func() { _, errs[v] = g.Do(t.Context(), v) })
		}
		wait(g, 5)
		close(release)
		wg.Wait()
		g.Close()
		failed := 0
		for _, err := range errs {
			if err != nil {
				failed++
			}
		}
		want := 1
		if retry == nil {
			want = 5
		}
		if failed != want || errs[3] == nil {
			t.Errorf("%s: %d failed, want %d: %v", name, failed, want, errs)
		}
	}
}

func TestACancelledCallerDoesNotJoin(t *testing.T) {
	g := New("x", nil, func(_ context.Context, items []int) ([]int, error) {
		t.Error("it ran")
		return items, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Do(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	g.Close()
}

// A run that panics fails all calls that shared it. Later runs of the group succeed.
func TestAPanicHandsTheLeadOff(t *testing.T) {
	entered, release := make(chan bool), make(chan bool)
	runs := 0
	g := New("x", nil, func(_ context.Context, items []int) ([]int, error) {
		switch runs++; runs {
		case 1:
			entered <- true
			<-release
		case 2:
			panic("a defect")
		}
		return items, nil
	})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = g.Do(t.Context(), 0) })
	<-entered
	var panics, broken atomic.Int64
	for range 5 {
		wg.Go(func() {
			defer func() {
				if recover() != nil {
					panics.Add(1)
				}
			}()
			if _, err := g.Do(t.Context(), 1); errors.Is(err, errBroken) {
				broken.Add(1)
			}
		})
	}
	wait(g, 5)
	close(release)
	wg.Wait()
	if got, err := g.Do(t.Context(), 7); got != 7 || err != nil || panics.Load() != 1 || broken.Load() != 4 {
		t.Errorf("then %d, %v; %d panics, %d broken", got, err, panics.Load(), broken.Load())
	}
	g.Close()
}

// More calls than one run takes go with several runs.
func TestRunsAreBounded(t *testing.T) {
	entered, release := make(chan bool), make(chan bool)
	var sizes []int
	g := New("x", nil, func(_ context.Context, items []int) ([]int, error) {
		if sizes = append(sizes, len(items)); len(sizes) == 1 {
			entered <- true
			<-release
		}
		return items, nil
	})
	var wg sync.WaitGroup
	call := func(v int) {
		if got, err := g.Do(t.Context(), v); got != v || err != nil {
			t.Errorf("%d: %d, %v", v, got, err)
		}
	}
	wg.Go(func() { call(-1) })
	<-entered
	for v := range 2*maxItems + 1 {
		wg.Go(func() { call(v) })
	}
	wait(g, 2*maxItems+1)
	close(release)
	wg.Wait()
	g.Close()
	if want := []int{1, maxItems, maxItems, 1}; !slices.Equal(sizes, want) {
		t.Errorf("runs of %v, want %v", sizes, want)
	}
}

// wait returns when n calls wait in a group.
func wait(g *Group[int, int], n int) {
	waiting := func() int {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.waiting)
	}
	for waiting() < n {
		runtime.Gosched()
	}
}

// Items of DoAsync run without a waiting caller. OnError is called once for a failed run.
func TestDoAsync(t *testing.T) {
	var mu sync.Mutex
	var seen []int
	told := make(chan error, 10)
	g := New("x", nil, func(_ context.Context, items []int) ([]struct{}, error) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, items...)
		if slices.Contains(items, 13) {
			return nil, errors.New("unlucky")
		}
		return make([]struct{}, len(items)), nil
	})
	g.OnError(func(err error) { told <- err })
	for i := range 14 {
		g.DoAsync(i)
	}
	if err := <-told; err == nil || err.Error() != "unlucky" {
		t.Errorf("told %v", err)
	}
	g.Close()
	if len(seen) != 14 {
		t.Errorf("%v", seen)
	}
}

func TestMinIntervalKeepsRunsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 2 * time.Millisecond
		begin := time.Now()
		var starts []time.Duration
		var sizes []int
		g := New("x", nil, func(_ context.Context, items []int) ([]int, error) {
			starts, sizes = append(starts, time.Since(begin)), append(sizes, len(items))
			return items, nil
		})
		g.MinInterval(interval)
		call := func() {
			if _, err := g.Do(t.Context(), 0); err != nil {
				t.Error(err)
			}
		}
		call()
		var wg sync.WaitGroup
		for range 3 { // too soon: they share the next run
			wg.Go(call)
		}
		wg.Wait()
		<-time.After(10 * interval)
		call() // after a longer pause: waits for nothing
		g.Close()
		if want := []time.Duration{0, interval, 11 * interval}; !slices.Equal(starts, want) || !slices.Equal(sizes, []int{1, 3, 1}) {
			t.Errorf("runs of %v at %v, want 1, 3 and 1 at %v", sizes, starts, want)
		}
	})
}

// With more than two runs' items waiting DoAsync blocks until a run took some of them.
func TestDoAsyncAppliesBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		g := New("x", nil, func(_ context.Context, items []int) ([]struct{}, error) {
			<-release
			return make([]struct{}, len(items)), nil
		})
		var added atomic.Int64
		go func() {
			for i := range 1 + 3*maxItems {
				g.DoAsync(i)
				added.Add(1)
			}
		}()
		synctest.Wait()
		if n := added.Load(); n < 2*maxItems || n > 3*maxItems { // two runs' items wait, and the first run may have taken some
			t.Errorf("%d items were added while no run ended", n)
		}
		close(release)
		synctest.Wait()
		g.Close()
		if n := added.Load(); n != 1+3*maxItems {
			t.Errorf("%d items were added", n)
		}
	})
}

// A run has a deadline, and a context that ends during the run does not keep its caller from the result.
func TestARunOutlivesItsCallers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := New("x", nil, func(run context.Context, items []int) ([]int, error) {
		cancel()
		if deadline, ok := run.Deadline(); !ok || time.Until(deadline) > timeout || run.Err() != nil {
			t.Errorf("deadline %v, %v", deadline, run.Err())
		}
		return items, nil
	})
	if got, err := g.Do(ctx, 7); got != 7 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	g.Close()
}

// A lone item is not retried: its error is its own.
func TestALoneItemIsNotRetried(t *testing.T) {
	runs := 0
	g := New("x", func(error) bool { return true }, func(context.Context, []int) ([]int, error) {
		runs++
		return nil, errBad
	})
	if _, err := g.Do(t.Context(), 1); !errors.Is(err, errBad) || runs != 1 {
		t.Errorf("%v after %d runs", err, runs)
	}
	g.Close()
}
