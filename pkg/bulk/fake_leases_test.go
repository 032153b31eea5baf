package bulk_test

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
)

// answersLate delays the answers of Running or Renew, which are as old then.
func (f *fake) answersLate(name string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = map[string]time.Duration{name: d}
}

// delay waits as long as an answer is late. The caller holds the lock, which is free meanwhile.
func (f *fake) delay(name string) {
	d := f.late[name]
	f.mu.Unlock()
	time.Sleep(d)
	f.mu.Lock()
}

func (b *fakeBulk) free() bool { return b.expires.Before(time.Now()) }

func (b *fakeBulk) ended() bool { return b.Final != nil || b.Status == bulk.Paused }

func (f *fake) Running(ctx context.Context, token uuid.UUID) ([]bulk.Running, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Running", token); err != nil {
		return nil, err
	}
	var all []*fakeBulk
	for _, b := range f.bulks {
		if !b.ended() {
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b *fakeBulk) int {
		if c := a.turnAt.Compare(b.turnAt); c != 0 {
			return c
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	free := map[channel.Key]int{}
	var out []bulk.Running
	for _, b := range all {
		if b.free() {
			if free[b.Channel]++; free[b.Channel] > 64 {
				continue
			}
		}
		out = append(out, bulk.Running{
			ID: b.ID, Channel: b.Channel, Priority: b.Priority, Cancelled: b.Status == bulk.Cancelled, Planned: b.Planned,
			Unfed: b.Total > b.FeedSeq, Open: b.FeedSeq > b.SettledSeq, Free: b.free(), Mine: b.token == token && !b.free(),
			Due: !b.turnAt.After(time.Now()), TurnAt: b.turnAt, Accepted: b.CreatedAt,
		})
	}
	f.delay("Running")
	return out, nil
}

func (f *fake) Acquire(ctx context.Context, l bulk.Lease, ttl time.Duration) (*bulk.Bulk, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Acquire", l, ttl); err != nil {
		return nil, err
	}
	b, err := f.row(l.BulkID)
	if err != nil || b.ended() || !b.free() {
		return nil, message.Errorf(message.CodeConflict, "the bulk is not to be run")
	}
	b.token, b.expires = l.Token, time.Now().Add(ttl)
	if b.StartedAt == nil {
		now := time.Now()
		b.StartedAt = &now
	}
	copied := b.Bulk
	if b.Planned {
		copied.Criteria.LeadIDs = nil
	}
	return &copied, nil
}

// leased returns the row of a lease that is still valid. The caller holds the lock.
func (f *fake) leased(l bulk.Lease) (*fakeBulk, error) {
	if b := f.bulks[l.BulkID]; b != nil && b.token == l.Token {
		return b, nil
	}
	return nil, bulk.ErrLeaseLost
}

func (f *fake) Renew(ctx context.Context, token uuid.UUID, ttl time.Duration) ([]uuid.UUID, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Renew", token, ttl); err != nil {
		return nil, err
	}
	var held []uuid.UUID
	for _, b := range f.bulks {
		if b.token == token && b.Final == nil {
			b.expires = time.Now().Add(ttl)
			held = append(held, b.ID)
		}
	}
	f.delay("Renew")
	return held, nil
}

func (f *fake) Release(ctx context.Context, l bulk.Lease, after time.Duration) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Release", l, after); err != nil {
		return err
	}
	b, err := f.leased(l)
	if err != nil {
		return err
	}
	b.token, b.expires, b.turnAt = uuid.Nil, time.Time{}, time.Now().Add(after)
	return nil
}

func (f *fake) ReleaseAll(ctx context.Context, token uuid.UUID) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "ReleaseAll", token); err != nil {
		return err
	}
	for _, b := range f.bulks {
		if b.token == token {
			b.token, b.expires = uuid.Nil, time.Time{}
		}
	}
	return nil
}

// leaseOf returns the token under which a bulk is run, Nil when it is not.
func (f *fake) leaseOf(b *bulk.Bulk) uuid.UUID {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bulks[b.ID].free() {
		return uuid.Nil
	}
	return f.bulks[b.ID].token
}
