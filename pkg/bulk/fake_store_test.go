package bulk_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// fakeBulk is a bulk's row and its messages.
type fakeBulk struct {
	bulk.Bulk
	rows    []*fakeMessage
	leads   []uuid.UUID // the audience, in order
	missing int64       // ids that no lead has, told with the first page
	token   uuid.UUID
	expires time.Time
	turnAt  time.Time
}

type fakeMessage struct {
	bulk.PlannedRow
	bulk       *fakeBulk
	seq        int64
	generation int
	claimed    time.Time // until when
	waiting    bool
	cost       message.Micros
}

func (m *fakeMessage) state() stats.MessageState {
	return stats.MessageState{Seq: m.seq, Status: m.Status, Reason: m.Reason, Waiting: m.waiting, Cost: m.cost}
}

func (f *fake) InsertBulk(ctx context.Context, b *bulk.Bulk, key *access.IdempotencyKey) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "InsertBulk", *b, key); err != nil {
		return err
	}
	c, err := f.channel(b.Channel)
	if err != nil {
		return err
	}
	b.ChannelVersion = c.Version
	row := &fakeBulk{Bulk: *b}
	for _, id := range b.Criteria.LeadIDs {
		if _, ok := f.leads[id]; ok {
			row.leads = append(row.leads, id)
		} else {
			row.missing++
		}
	}
	f.bulks[b.ID] = row
	return nil
}

// row returns a bulk's row. The caller holds the lock.
func (f *fake) row(id uuid.UUID) (*fakeBulk, error) {
	if b := f.bulks[id]; b != nil {
		return b, nil
	}
	return nil, message.Errorf(message.CodeNotFound, "bulk not found")
}

func (f *fake) Bulk(ctx context.Context, id uuid.UUID) (*bulk.Bulk, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Bulk", id); err != nil {
		return nil, err
	}
	b, err := f.row(id)
	if err != nil {
		return nil, err
	}
	copied := b.Bulk
	copied.Criteria.LeadIDs = nil // as the store: only planning and explanations get them
	return &copied, nil
}

func (f *fake) Bulks(ctx context.Context, _ bulk.Filter, before uuid.UUID, limit int) ([]bulk.Bulk, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Bulks", before, limit); err != nil {
		return nil, err
	}
	var out []bulk.Bulk
	for _, b := range f.bulks {
		if before == uuid.Nil || bytes.Compare(b.ID[:], before[:]) < 0 {
			out = append(out, b.Bulk)
		}
	}
	slices.SortFunc(out, func(a, b bulk.Bulk) int { return bytes.Compare(b.ID[:], a.ID[:]) })
	return out[:min(limit, len(out))], nil
}

func (f *fake) Tally(ctx context.Context, id uuid.UUID) (stats.Counts, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Tally", id); err != nil {
		return stats.Counts{}, err
	}
	return f.bulks[id].tally(), nil
}

func (b *fakeBulk) tally() (c stats.Counts) {
	for _, m := range b.rows {
		c.Add(m.state(), 1)
	}
	return c
}

func (f *fake) Move(ctx context.Context, id uuid.UUID, from []bulk.Status, to bulk.Status) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Move", id, from, to); err != nil {
		return err
	}
	b, err := f.row(id)
	if err != nil {
		return err
	}
	if !slices.Contains(from, b.Status) {
		return message.Errorf(message.CodeConflict, "the bulk is %s", b.Status)
	}
	b.Status, b.token, b.expires, b.turnAt = to, uuid.Nil, time.Time{}, time.Time{}
	return nil
}

func (f *fake) Resolve(ctx context.Context, c *audience.Criteria, typ message.ChannelType, after string, limit int) (audience.Page, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Resolve", *c, typ, after, limit); err != nil {
		return audience.Page{}, err
	}
	from, _ := strconv.Atoi(after)
	page := audience.Page{}
	for i, id := range c.LeadIDs[from:] {
		if len(page.Candidates)+int(page.NotFound) == limit {
			page.Next = strconv.Itoa(from + i)
			return page, nil
		}
		lead, ok := f.leads[id]
		if !ok {
			page.NotFound++
			continue
		}
		page.Candidates = append(page.Candidates, audience.Candidate{LeadID: id, Address: addressOf(&lead, typ)})
	}
	page.Done = true
	return page, nil
}

func addressOf(l *message.Lead, typ message.ChannelType) string {
	if typ == message.SMS {
		return l.Phone
	}
	return l.Email
}

func (f *fake) Suppressed(ctx context.Context, typ message.ChannelType, mt message.MessageType, hashes []message.Hash) (map[message.Hash]message.Reason, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Suppressed", typ, mt, len(hashes)); err != nil {
		return nil, err
	}
	found := map[message.Hash]message.Reason{}
	for _, h := range hashes {
		if reason := f.blocked[h]; reason != message.NoReason {
			found[h] = reason
		}
	}
	return found, nil
}

func (f *fake) AddPage(ctx context.Context, p bulk.PlanPage) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "AddPage", p); err != nil {
		return err
	}
	b, err := f.leased(p.Lease)
	if err != nil || p.Base != int64(len(b.rows)) {
		return bulk.ErrLeaseLost
	}
	taken := map[message.Hash]bool{}
	for _, m := range b.rows {
		taken[m.Hash] = taken[m.Hash] || m.Dedupe
	}
	for _, r := range p.Rows {
		if r.Dedupe && taken[r.Hash] {
			if r.FirstSeen { // the store does not look for it, so its unique index refuses the page
				return errors.New("duplicate key value violates unique constraint")
			}
			r.Status, r.Reason, r.Dedupe = message.Skipped, message.DuplicateRecipient, false
		}
		f.addRow(b, fakeMessage{PlannedRow: r})
	}
	b.Total, b.PlanCursor, b.Planned, b.NotFound = int64(len(b.rows)), p.Cursor, p.Done, b.NotFound+p.NotFound
	return nil
}

// addRow writes a message behind the others of its bulk. The caller holds the lock.
func (f *fake) addRow(b *fakeBulk, m fakeMessage) {
	m.bulk, m.seq = b, int64(len(b.rows))
	b.rows = append(b.rows, &m)
	f.byID[m.ID] = &m
}

func (f *fake) Abandon(ctx context.Context, l bulk.Lease, why string) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Abandon", l, why); err != nil {
		return err
	}
	b, err := f.leased(l)
	if err != nil {
		return err
	}
	b.Status, b.StatusReason, b.token, b.expires, b.turnAt = bulk.Cancelled, why, uuid.Nil, time.Time{}, time.Time{}
	return nil
}

func (f *fake) Walk(ctx context.Context, id uuid.UUID, from int64, limit int) ([]bulk.Row, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Walk", id, from, limit); err != nil {
		return nil, err
	}
	var out []bulk.Row
	rows := f.bulks[id].rows
	for _, m := range rows[min(from, int64(len(rows))):] {
		if len(out) == limit {
			break
		}
		out = append(out, bulk.Row{ID: m.ID, Generation: m.generation, Claimed: m.claimed.After(time.Now()), State: m.state()})
	}
	return out, nil
}

func (f *fake) Advance(ctx context.Context, l bulk.Lease, feedSeq, settledSeq int64) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Advance", feedSeq, settledSeq); err != nil {
		return err
	}
	b, err := f.leased(l)
	if err != nil {
		return err
	}
	b.FeedSeq, b.SettledSeq = max(b.FeedSeq, feedSeq), max(b.SettledSeq, settledSeq)
	return nil
}

func (f *fake) Cancel(ctx context.Context, ids []uuid.UUID) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Cancel", ids); err != nil {
		return err
	}
	for _, m := range f.messages(ids) {
		switch {
		case m.waiting:
			m.waiting = false
		case m.Status == message.Pending:
			m.Status, m.Reason = message.Cancelled, message.WasCancelled
		}
	}
	return nil
}

// messages finds messages by their ids. The caller holds the lock.
func (f *fake) messages(ids []uuid.UUID) (out []*fakeMessage) {
	for _, id := range ids {
		if m := f.byID[id]; m != nil {
			out = append(out, m)
		}
	}
	return out
}

func (f *fake) Finish(ctx context.Context, id uuid.UUID) (bool, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Finish", id); err != nil {
		return false, err
	}
	b := f.bulks[id]
	counts := b.tally()
	if b.Status == bulk.Paused || (!b.Planned && b.Status != bulk.Cancelled) || counts.Settled() < b.Total {
		return false, nil
	}
	if b.Status == bulk.Processing {
		b.Status = bulk.Completed
	}
	at := time.Now()
	b.Final, b.CompletedAt, b.token, b.expires = &counts, &at, uuid.Nil, time.Time{}
	return true, nil
}

func (f *fake) Rescue(ctx context.Context, id uuid.UUID) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Rescue", id); err != nil {
		return err
	}
	for _, m := range f.messages([]uuid.UUID{id}) {
		m.Status, m.Reason = message.Unknown, message.UnknownOutcome
	}
	return nil
}

func (f *fake) LeadsByID(ctx context.Context, ids []uuid.UUID) ([]message.Lead, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "LeadsByID", slices.Clone(ids)); err != nil {
		return nil, err
	}
	var out []message.Lead
	for _, id := range ids {
		if l, ok := f.leads[id]; ok {
			out = append(out, l)
		}
	}
	return out, nil
}

func (f *fake) BulkWithIDs(ctx context.Context, id uuid.UUID) (*bulk.Bulk, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "BulkWithIDs", id); err != nil {
		return nil, err
	}
	b, err := f.row(id)
	if err != nil {
		return nil, err
	}
	return &b.Bulk, nil
}

func (f *fake) MessageOf(ctx context.Context, bulkID, leadID uuid.UUID) (*message.Message, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "MessageOf", bulkID, leadID); err != nil {
		return nil, err
	}
	if b := f.bulks[bulkID]; b != nil {
		for _, m := range b.rows {
			if m.LeadID == leadID {
				return &message.Message{ID: m.ID, BulkID: bulkID, Seq: m.seq, Status: m.Status, Reason: m.Reason}, nil
			}
		}
	}
	return nil, message.Errorf(message.CodeNotFound, "message not found")
}
