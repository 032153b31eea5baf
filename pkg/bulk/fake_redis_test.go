package bulk_test

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/stats"
)

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
	return f.settleIf(func(*fakeMessage) bool { n--; return n >= 0 }, change)
}

// settleIf is settle for the tasks of some messages.
func (f *fake) settleIf(takes func(m *fakeMessage) bool, change func(m *fakeMessage)) (settled int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := make([]bulk.Task, 0, len(f.queue))
	for _, task := range f.queue {
		m := f.byID[task.MessageID]
		if !takes(m) {
			rest = append(rest, task)
			continue
		}
		delete(f.known, task)
		change(m)
		f.count(m.bulk.ID, m.state())
		settled++
	}
	f.queue = rest
	return settled
}

func sent(m *fakeMessage) { m.Status, m.cost = message.Sent, 3 }

func (f *fake) deliver(n int) int { return f.settle(n, sent) }

func (f *fake) deliverOf(b *bulk.Bulk) {
	f.settleIf(func(m *fakeMessage) bool { return m.bulk.ID == b.ID }, sent)
}

// dropTasks empties the queue, as a restart of Redis without its data does.
func (f *fake) dropTasks() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = nil
	clear(f.known)
}
