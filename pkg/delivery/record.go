package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"

	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/stats"
)

const (
	minRecordBudget = 10 * time.Second // an outcome is tried for at least this long
	queueTimeout    = time.Second      // for handing a single to the workers while its caller waits
)

// settle writes an outcome, counts it, and hands an inline single that waits to the workers. What happened is recorded also
// when the caller has gone.
func (d *Deliverer) settle(ctx context.Context, w *work, o Outcome) (Result, error) {
	ctx = context.WithoutCancel(ctx)
	res := Result{Status: o.status, Reason: o.reason, Failure: o.failure, ProviderMessageID: o.providerMessageID, Cost: o.cost, Again: o.dueAfter}
	stored := o
	switch {
	case o.status == message.Unknown:
		res.Again = 0 // the sweep brings the message back, not the queue
	case o.dueAfter > 0:
		stored.dueAfter += d.deps.Timing.Watch // the queue runs the message first; the sweep is the second line
	}
	began := time.Now()
	settled, err := d.record(ctx, stored, d.recordBudget(w))
	w.event.Outcome += time.Since(began)
	if err != nil {
		return Result{}, err
	}
	w.event.Fenced = !settled.OK
	switch {
	case settled.Erased, !settled.OK && w.inline:
		return d.reload(ctx, w)
	case !settled.OK:
		return Result{Status: w.Status}, nil
	}
	if o.status == message.Sent {
		res.SentAt = &settled.At
	}
	if o.extendsClaim > 0 {
		w.Part = o.row.Part
		return res, nil
	}
	fault.Point(fault.MessageSettled)
	if !w.single() {
		began = time.Now()
		d.count(w.Message, o.state(w.Seq))
		w.event.Count = time.Since(began)
		fault.Point(fault.MessageCounted)
	}
	if w.inline && o.status == message.Queued {
		d.enqueue(ctx, w, o.dueAfter)
	}
	return res, nil
}

// enqueue hands a single to the workers. If that fails, the sweep finds the row.
func (d *Deliverer) enqueue(ctx context.Context, w *work, after time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	if err := d.deps.Queue.Later(ctx, w.Message, after); err != nil {
		w.event.Err = errors.Join(w.event.Err, err)
	}
}

// state is how the outcome counts in the figures of its bulk.
func (o *Outcome) state(seq int64) stats.MessageState {
	return stats.MessageState{Seq: seq, Status: o.status, Reason: o.reason, Waiting: o.status == message.Unknown && o.dueAfter > 0, Cost: o.cost}
}

// count counts a message of a bulk, unless the message is open.
func (d *Deliverer) count(m *message.Message, state stats.MessageState) {
	if m.BulkID != uuid.Nil && state.Code() != 0 {
		d.deps.Counters.Count(m.BulkID, state)
	}
}

// reload reads and counts a message as the ledger has it: its lead was erased during the delivery, or another process has
// settled it.
func (d *Deliverer) reload(ctx context.Context, w *work) (Result, error) {
	loaded, err := d.deps.Ledger.Load(ctx, w.ID)
	if err != nil {
		return Result{}, err
	}
	m := loaded.Message
	d.count(m, stats.MessageState{Seq: m.Seq, Status: m.Status, Reason: m.Reason, Waiting: m.Status == message.Unknown && m.NextAttemptAt != nil, Cost: m.Cost})
	return resultOf(m), nil
}

// recordBudget is how long an outcome is tried: as long as the claim excludes other processes.
func (d *Deliverer) recordBudget(w *work) time.Duration {
	budget := d.deps.Timing.Claim
	if w.token != uuid.Nil {
		budget -= time.Since(w.claimed)
	}
	return max(budget, minRecordBudget)
}

// record writes an outcome, and repeats that within a budget until the ledger accepts it, because only this process knows
// what happened. An outcome with a value that the database refuses is written once more without the provider's words, and
// then given up. When the answer to a write was lost, the row tells whether it took effect.
func (d *Deliverer) record(ctx context.Context, o Outcome, budget time.Duration) (Settled, error) {
	settled, err := d.deps.Ledger.Settle(ctx, o)
	if err == nil {
		return settled, nil
	}
	return d.retryRecord(ctx, o, err, budget)
}

// retryRecord is the slow path of record. It is a separate function so that the usual outcome stays on the stack.
func (d *Deliverer) retryRecord(ctx context.Context, o Outcome, failed error, budget time.Duration) (settled Settled, err error) {
	wordless := false
	err = retry(ctx, failed, budget, func(ctx context.Context, failed error) (err error) {
		if message.IsCode(failed, message.CodeInvalid) {
			if wordless {
				return backoff.Permanent(failed)
			}
			o, wordless = o.withoutWords(), true
		}
		if settled, err = d.recorded(ctx, o); err == nil && !settled.OK {
			settled, err = d.deps.Ledger.Settle(ctx, o)
		}
		return err
	})
	return settled, err
}

// recorded says whether the row shows an outcome: it has the outcome's status under the outcome's claim, or the state in
// which the rule of erasure left it.
func (d *Deliverer) recorded(ctx context.Context, o Outcome) (Settled, error) {
	loaded, err := d.deps.Ledger.Load(ctx, o.row.ID)
	if err != nil {
		return Settled{}, err
	}
	m := loaded.Message
	s := Settled{At: m.UpdatedAt, Erased: m.Recipient == ""}
	s.OK = loaded.ClaimToken == o.row.Token && m.Part == o.row.Part && (m.Status == o.status || s.Erased && m.Status != message.Sending)
	return s, nil
}
