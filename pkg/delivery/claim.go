package delivery

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"

	"herald/pkg/fault"
	"herald/pkg/message"
)

const (
	claimBudget   = 30 * time.Second // for asking again for a claim whose answer was lost
	releaseBudget = time.Second      // for the release of a claim whose answer is not known
)

func (d *Deliverer) newClaim(id uuid.UUID) Claim {
	return Claim{ID: id, Token: uuid.New(), TTL: d.deps.Timing.Claim, Most: MaxAttempts}
}

// claim claims the message just before its call, where LoadAndClaim did not. It returns false when the message is settled
// or claimed by another process.
func (d *Deliverer) claim(ctx context.Context, w *work) (ok bool, err error) {
	claim := d.newClaim(w.ID)
	fault.Point(fault.MessageLoaded)
	began := time.Now()
	asked, err := d.retryClaim(ctx, func(ctx context.Context) error {
		ok, err = d.deps.Ledger.Claim(ctx, claim)
		return err
	})
	w.event.Claim = time.Since(began)
	if err != nil {
		d.release(ctx, Row{ID: w.ID, Token: claim.Token, Single: w.single()})
	}
	if ok {
		w.token, w.claimed = claim.Token, asked
		w.Attempt++
	}
	return ok, err
}

// retryClaim asks the ledger for a claim until it answers, for at most claimBudget. A claim whose answer was lost may be in
// force, and only its owner knows that nothing was sent under it. It returns the time before the last question: a process
// that was frozen meanwhile must know how old its claim is.
func (d *Deliverer) retryClaim(ctx context.Context, ask func(ctx context.Context) error) (time.Time, error) {
	asked := time.Now()
	err := ask(ctx)
	if !message.IsCode(err, message.CodeUnavailable) {
		return asked, err
	}
	return askAgain(ctx, err, ask)
}

// askAgain is the slow path of retryClaim.
func askAgain(ctx context.Context, failed error, ask func(ctx context.Context) error) (asked time.Time, err error) {
	err = retry(ctx, failed, claimBudget, func(ctx context.Context, _ error) error {
		asked = time.Now()
		err := ask(ctx)
		if err != nil && !message.IsCode(err, message.CodeUnavailable) {
			return backoff.Permanent(err)
		}
		return err
	})
	return asked, err
}

// release gives up a claim whose answer was an error. The claim may be in force all the same, and only this process knows
// that nothing was sent under it. If the release fails too, the claim expires and the message becomes UNKNOWN.
func (d *Deliverer) release(ctx context.Context, r Row) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseBudget)
	defer cancel()
	_, _ = d.deps.Ledger.Settle(ctx, r.Release(message.NoReason, retryPause))
}
