package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// retry repeats a call to the ledger that failed with an error, until it succeeds, returns a backoff.PermanentError or the
// budget is spent. It waits 50 ms before the first repetition and twice as long before each further one, up to 1 s. Each
// repetition is given the error of the one before. The result is the error of the last call, not that of the context: it
// says why the ledger did not answer.
//
// The waits have no jitter: the ledger's calls are grouped, so the calls that return together share a statement.
func retry(ctx context.Context, failed error, budget time.Duration, call func(ctx context.Context, failed error) error) error {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.Multiplier, waits.MaxInterval, waits.RandomizationFactor = 50*time.Millisecond, 2, time.Second, 0
	made := false // the first call was made by the caller
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		if made {
			failed = call(ctx, failed)
		}
		made = true
		return struct{}{}, failed
	}, backoff.WithBackOff(waits), backoff.WithMaxElapsedTime(0))
	var permanent *backoff.PermanentError
	if errors.As(failed, &permanent) {
		return permanent.Unwrap()
	}
	return failed
}
