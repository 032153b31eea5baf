package queue

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"herald/pkg/message"
)

// A failed task runs again after a back-off with jitter; a task that asks for a time gets exactly that.
func TestRetryDelay(t *testing.T) {
	for _, c := range []struct {
		n           int
		err         error
		least, most time.Duration
	}{
		{0, errors.New("x"), 500 * time.Millisecond, time.Second},
		{3, errors.New("x"), 4 * time.Second, 8 * time.Second},
		{6, errors.New("x"), 30 * time.Second, time.Minute},
		{500, errors.New("x"), 30 * time.Second, time.Minute},
		{500, fmt.Errorf("deliver: %w", &Again{After: 7 * time.Millisecond}), 7 * time.Millisecond, 7 * time.Millisecond},
	} {
		for range 50 {
			if d := retryDelay(c.n, c.err, nil); d < c.least || d > c.most {
				t.Errorf("retry %d after %v: %v, want %v to %v", c.n, c.err, d, c.least, c.most)
			}
		}
	}
}

// A task that asks to run again uses no retry; any other error does.
func TestWhatUsesARetry(t *testing.T) {
	if isFailure(fmt.Errorf("deliver: %w", &Again{After: time.Second})) || !isFailure(errors.New("x")) {
		t.Error("a task that waits uses a retry, or one that failed does not")
	}
}

// Each channel type has its own queues, singles are polled first most often, and a bulk's priority chooses its queue.
func TestQueues(t *testing.T) {
	if got := len(Names()); got != 1+4*len(message.ChannelTypes) {
		t.Errorf("%d queues", got)
	}
	for name, want := range map[string]int{"sms.single": 6, "sms.high": 3, "sms.normal": 2, "sms.low": 1} {
		if got := QueuesOf(message.SMS)[name]; got != want {
			t.Errorf("%s has weight %d, want %d", name, got, want)
		}
	}
	for p, want := range map[message.Priority]lane{message.High: laneHigh, message.Normal: laneNormal, message.Low: laneLow, "": laneNormal} {
		if got := laneOf(p); got != want {
			t.Errorf("priority %q goes to %s, want %s", p, got, want)
		}
	}
}
