package bulk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/stats"
)

// fake is everything around a bulk in memory: ledger, leases, queue, counters and channels, with the rules that pkg/store
// and pkg/queue keep. It is used inside a synctest bubble, so that intervals pass at once and each time is exact.
type fake struct {
	t  *testing.T
	mu sync.Mutex

	bulks      map[uuid.UUID]*fakeBulk
	leads      map[uuid.UUID]message.Lead
	channels   map[channel.Key]*channel.Channel
	state      channel.State
	workers    int
	counts     map[uuid.UUID]map[int64]stats.MessageState // absent: lost
	rebuilding map[uuid.UUID]bool
	queue      []bulk.Task
	known      map[bulk.Task]bool // the tasks that the queue still has
	blocked    map[message.Hash]message.Reason
	runner     *bulk.Runner

	// before is called at the start of each call, by its name, and may delay it or make it fail.
	before map[string]func(ctx context.Context, n int) error
	calls  []call
	late   map[string]time.Duration // how long an answer takes after it was made
}

// call is one call of a port.
type call struct {
	name string
	at   time.Time
	args []any
}

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

// inBubble runs a test with virtual time.
func inBubble(t *testing.T, test func(t *testing.T, f *fake)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newFake(t)) })
}

func newFake(t *testing.T) *fake {
	return &fake{
		t: t, bulks: map[uuid.UUID]*fakeBulk{}, leads: map[uuid.UUID]message.Lead{}, channels: map[channel.Key]*channel.Channel{},
		workers: 1, counts: map[uuid.UUID]map[int64]stats.MessageState{}, rebuilding: map[uuid.UUID]bool{}, known: map[bulk.Task]bool{},
		blocked: map[message.Hash]message.Reason{}, before: map[string]func(context.Context, int) error{},
	}
}

// enter records a call, lets the test interfere with it, and locks.
func (f *fake) enter(ctx context.Context, name string, args ...any) error {
	f.mu.Lock()
	f.calls = append(f.calls, call{name, time.Now(), args})
	n := 0
	for _, c := range f.calls {
		if c.name == name {
			n++
		}
	}
	interfere := f.before[name]
	f.mu.Unlock()
	var err error
	if interfere != nil {
		err = interfere(ctx, n)
	}
	if err == nil {
		err = ctx.Err()
	}
	f.mu.Lock()
	return err
}

// on sets what happens before each call of a port. n counts the calls from 1.
func (f *fake) on(name string, interfere func(ctx context.Context, n int) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before[name] = interfere
}

// fails makes the calls of a port fail from the first to the last-th.
func (f *fake) fails(name string, last int, err error) {
	f.on(name, func(_ context.Context, n int) error {
		if n <= last {
			return err
		}
		return nil
	})
}

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

// called returns the calls of a port so far.
func (f *fake) called(name string) []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []call
	for _, c := range f.calls {
		if c.name == name {
			out = append(out, c)
		}
	}
	return out
}

// events returns how often an event was reported.
func (f *fake) events(event string) (n int) {
	for _, c := range f.called("BulkEvent") {
		if c.args[0] == event {
			n++
		}
	}
	return n
}

// reported returns what was reported as failed, each once, in order.
func (f *fake) reported() (list []string) {
	for _, c := range f.called("BulkError") {
		if text := fmt.Sprint(c.args[0]); !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list
}

// Channels.

func (f *fake) Get(ctx context.Context, k channel.Key) (*channel.Channel, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Get", k); err != nil {
		return nil, err
	}
	return f.channel(k)
}

func (f *fake) AtLeast(ctx context.Context, k channel.Key, version int64) (*channel.Channel, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "AtLeast", k, version); err != nil {
		return nil, err
	}
	return f.channel(k)
}

func (f *fake) channel(k channel.Key) (*channel.Channel, error) {
	c := f.channels[k]
	if c == nil {
		return nil, message.Errorf(message.CodeNotFound, "channel not found")
	}
	copied := *c
	return &copied, nil
}

// changed changes a channel, as an operator would.
func (f *fake) changed(c *channel.Channel, change func(c *channel.Channel)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.channels[c.Key])
}

// ChannelHealth.

func (f *fake) State(ctx context.Context, _ channel.Key) channel.State {
	defer f.mu.Unlock()
	if f.enter(ctx, "State") != nil {
		return channel.Active
	}
	return f.state
}

func (f *fake) Rate(_ context.Context, c *channel.Channel) float64 { return c.RatePerSecond }

// Observer.

func (f *fake) BulkEvent(_ context.Context, event string, id uuid.UUID, args ...any) {
	defer f.mu.Unlock()
	_ = f.enter(context.Background(), "BulkEvent", event, id, args)
}

func (f *fake) BulkError(_ context.Context, during string, id uuid.UUID, err error) {
	defer f.mu.Unlock()
	_ = f.enter(context.Background(), "BulkError", during, id, err)
}

func (f *fake) Step(stage string, n int, took time.Duration) {
	defer f.mu.Unlock()
	_ = f.enter(context.Background(), "Step", stage, n, took)
}

// Store and Lifecycle.

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

func (f *fake) Bulks(ctx context.Context, before uuid.UUID, limit int) ([]bulk.Bulk, error) {
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

// Leases.

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

// Resolver and Plan.

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
		b.rows = append(b.rows, &fakeMessage{PlannedRow: r, bulk: b, seq: int64(len(b.rows))})
	}
	b.Total, b.PlanCursor, b.Planned, b.NotFound = int64(len(b.rows)), p.Cursor, p.Done, b.NotFound+p.NotFound
	return nil
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

// Feed.

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
	for _, b := range f.bulks {
		for _, m := range b.rows {
			if slices.Contains(ids, m.ID) {
				out = append(out, m)
			}
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

// Queue and Rescuer.

func (f *fake) Enqueue(ctx context.Context, typ message.ChannelType, p message.Priority, tasks []bulk.Task) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Enqueue", typ, p, slices.Clone(tasks)); err != nil {
		return err
	}
	for _, task := range tasks {
		if !f.known[task] {
			f.known[task] = true
			f.queue = append(f.queue, task)
		}
	}
	return nil
}

func (f *fake) Wake(ctx context.Context, id uuid.UUID) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Wake", id); err != nil {
		return err
	}
	if f.runner != nil {
		f.runner.Wake()
	}
	return nil
}

func (f *fake) Workers(ctx context.Context) (int, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Workers"); err != nil {
		return 0, err
	}
	return f.workers, nil
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

// Counters.

func (f *fake) Begin(ctx context.Context, id uuid.UUID) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Begin", id); err != nil {
		return err
	}
	if f.counts[id] == nil {
		f.counts[id] = map[int64]stats.MessageState{}
	}
	return nil
}

func (f *fake) Read(ctx context.Context, id uuid.UUID) (stats.Counts, bool, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Read", id); err != nil {
		return stats.Counts{}, false, err
	}
	c, ok := f.counted(id)
	return c, ok, nil
}

func (f *fake) Follow(ctx context.Context, id uuid.UUID) (stats.Counts, bool, error) {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Follow", id); err != nil {
		return stats.Counts{}, false, err
	}
	c, ok := f.counted(id)
	return c, ok, nil
}

func (f *fake) counted(id uuid.UUID) (c stats.Counts, ok bool) {
	for _, m := range f.counts[id] {
		c.Add(m, 1)
	}
	return c, f.counts[id] != nil && !f.rebuilding[id]
}

func (f *fake) CountAll(ctx context.Context, id uuid.UUID, marks []stats.MessageState) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "CountAll", id, slices.Clone(marks)); err != nil {
		return err
	}
	for _, m := range marks {
		f.count(id, m)
	}
	return nil
}

// count counts a message, once for each higher state. The caller holds the lock.
func (f *fake) count(id uuid.UUID, m stats.MessageState) {
	if counted := f.counts[id]; counted != nil && m.Code() > counted[m.Seq].Code() {
		counted[m.Seq] = m
	}
}

func (f *fake) BeginRebuild(ctx context.Context, id uuid.UUID) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "BeginRebuild", id); err != nil {
		return err
	}
	f.rebuilding[id] = true
	if f.counts[id] == nil {
		f.counts[id] = map[int64]stats.MessageState{}
	}
	return nil
}

func (f *fake) EndRebuild(ctx context.Context, id uuid.UUID) error {
	defer f.mu.Unlock()
	if err := f.enter(ctx, "EndRebuild", id); err != nil {
		return err
	}
	f.rebuilding[id] = false
	return nil
}

func (f *fake) Keep(ctx context.Context, id uuid.UUID) error {
	defer f.mu.Unlock()
	return f.enter(ctx, "Keep", id)
}

// PreviewStore.

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

// What tests do with a fake.

// newChannel stores an e-mail channel; a rate of 0 is none.
func (f *fake) newChannel(rate float64) *channel.Channel {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &channel.Channel{
		Key: channel.Key{ID: uuid.New(), Type: message.Email}, Provider: "sendgrid", State: channel.Active, RatePerSecond: rate, Version: 7,
	}
	f.channels[c.Key] = c
	copied := *c
	return &copied
}

// newLeads stores leads and returns their ids. The i-th has the address l<i>@example.com and the phone +1415555<i>.
func (f *fake) newLeads(n int) []uuid.UUID {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7())
		f.leads[ids[i]] = message.Lead{ID: ids[i], Email: fmt.Sprintf("l%d@example.com", i), Phone: fmt.Sprintf("+1415555%04d", i), FirstName: fmt.Sprint("Lead", i)}
	}
	return ids
}

func (f *fake) newService() *bulk.Service {
	return bulk.NewService(bulk.ServiceDeps{Store: f, Lifecycle: f, Queue: f, Counters: f, Channels: f, Health: f, Observer: f})
}

// newRequest is a request for a bulk to the leads.
func newRequest(c *channel.Channel, leads []uuid.UUID) bulk.Request {
	return bulk.Request{
		Channel: c, Content: message.Content{Subject: "s", Text: "t"}, Criteria: audience.Criteria{LeadIDs: leads}, MessageType: message.Marketing,
		Priority: message.Normal, Request: []byte(`{}`),
	}
}

// accept accepts a bulk to the leads; change may change the request.
func (f *fake) accept(c *channel.Channel, leads []uuid.UUID, change ...func(r *bulk.Request)) *bulk.Bulk {
	f.t.Helper()
	r := newRequest(c, leads)
	for _, change := range change {
		change(&r)
	}
	b, err := f.newService().Accept(f.t.Context(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// start starts a runner with the intervals of a real deployment. It is stopped when the test ends.
func (f *fake) start(change ...func(d *bulk.RunnerDeps)) *bulk.Runner {
	d := bulk.RunnerDeps{
		Leases: f, Plan: f, Feed: f, Resolver: f, Queue: f, Counters: f, Rescuer: f, Channels: f, Health: f, Observer: f, Timing: bulk.DefaultTiming(),
	}
	for _, change := range change {
		change(&d)
	}
	r := bulk.NewRunner(d)
	f.mu.Lock()
	f.runner = r
	f.mu.Unlock()
	r.Start()
	f.t.Cleanup(r.Stop)
	return r
}

// pass lets virtual time pass, and what happens meanwhile happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// until lets time pass until something holds.
func (f *fake) until(limit time.Duration, what string, holds func() bool) {
	f.t.Helper()
	for began := time.Now(); !holds(); pass(5 * time.Millisecond) {
		if time.Since(began) > limit {
			f.t.Fatalf("after %v not: %s; failures %v", limit, what, f.reported())
		}
	}
}

// now returns a bulk's row as it is now.
func (f *fake) now(b *bulk.Bulk) bulk.Bulk {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bulks[b.ID].Bulk
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

// rows returns the messages of a bulk as they were planned.
func (f *fake) rows(b *bulk.Bulk) (out []bulk.PlannedRow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.bulks[b.ID].rows {
		out = append(out, m.PlannedRow)
	}
	return out
}

// queued returns how many tasks of each bulk are in the queue.
func (f *fake) queued() map[uuid.UUID]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := map[uuid.UUID]int{}
	for _, task := range f.queue {
		for _, m := range f.messages([]uuid.UUID{task.MessageID}) {
			n[m.bulk.ID]++
		}
	}
	return n
}

func (f *fake) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queue)
}

// settle takes up to n tasks out of the queue, changes their messages, and counts them.
func (f *fake) settle(n int, change func(m *fakeMessage)) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.queue[:min(n, len(f.queue))]
	f.queue = slices.Clone(f.queue[len(taken):])
	for _, task := range taken {
		delete(f.known, task)
		for _, m := range f.messages([]uuid.UUID{task.MessageID}) {
			change(m)
			f.count(m.bulk.ID, m.state())
		}
	}
	return len(taken)
}

func (f *fake) deliver(n int) int {
	return f.settle(n, func(m *fakeMessage) { m.Status, m.cost = message.Sent, 3 })
}

// dropTasks empties the queue, as a restart of Redis without its data does.
func (f *fake) dropTasks() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = nil
	clear(f.known)
}

// finish delivers everything until bulks are over.
func (f *fake) finish(bulks ...*bulk.Bulk) {
	f.t.Helper()
	f.until(time.Hour, "the bulks are over", func() bool {
		f.deliver(1_000_000)
		return !slices.ContainsFunc(bulks, func(b *bulk.Bulk) bool { return f.now(b).Final == nil })
	})
}

// near says whether a duration is within a tolerance of the one that is wanted.
func near(got, want, tolerance time.Duration) bool { return (got - want).Abs() <= tolerance }
