package api

import (
	"fmt"
	"sync"
	"time"

	"herald/pkg/message"
)

// dryRuns bounds the dry runs that are under way: a few of each API key, and in all fewer than there are connections for
// audiences, each of which a dry run may keep for its whole time.
type dryRuns struct {
	places chan struct{}
	mu     sync.Mutex
	under  map[string]int // way, by key
}

const (
	maxDryRuns  = 2 // of one key at a time
	dryRunAgain = 5 * time.Second
)

func newDryRuns(places int) *dryRuns {
	return &dryRuns{places: make(chan struct{}, max(places, 1)), under: map[string]int{}}
}

// enter lets a dry run in, and returns how to end it.
func (d *dryRuns) enter(key string) (leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.under[key] >= maxDryRuns {
		return nil, &message.Error{
			Code: message.CodeThrottled, RetryAfter: dryRunAgain,
			Message: fmt.Sprintf("at most %d dry runs of an API key are made at a time; come back when one of them has ended", maxDryRuns),
		}
	}
	select {
	case d.places <- struct{}{}:
	default:
		return nil, &message.Error{Code: message.CodeUnavailable, RetryAfter: dryRunAgain, Message: "too many dry runs are under way; come back in a moment"}
	}
	d.under[key]++
	return func() {
		<-d.places
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.under[key]--; d.under[key] == 0 {
			delete(d.under, key)
		}
	}, nil
}
