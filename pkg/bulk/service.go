package bulk

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"herald/pkg/access"
	"herald/pkg/audience"
	"herald/pkg/channel"
	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/render"
	"herald/pkg/stats"
)

// Request is a request for a bulk send.
type Request struct {
	Channel     *channel.Channel
	Content     message.Content
	Files       []message.FileData // of Content.Attachments
	Criteria    audience.Criteria
	Name        string
	Author      access.Author
	MessageType message.MessageType
	Priority    message.Priority
	Request     json.RawMessage
	Key         *access.IdempotencyKey // nil: none, so a repeated request is another bulk
}

// Service accepts and steers bulks and returns their figures. Its methods are safe for concurrent use.
type Service struct {
	deps     ServiceDeps
	draining chan struct{}
}

// ServiceDeps are the ports of a Service. All are required.
type ServiceDeps struct {
	Store     Store
	Lifecycle Lifecycle
	Queue     Queue
	Counters  Counters
	Channels  Channels
	Health    ChannelHealth
	Observer  Observer
}

// Channels returns channels from a cache. AtLeast returns one that is not older than a version. Both return a message.Error
// not_found.
type Channels interface {
	Get(ctx context.Context, k channel.Key) (*channel.Channel, error)
	AtLeast(ctx context.Context, k channel.Key, version int64) (*channel.Channel, error)
}

// NewService makes a Service.
func NewService(d ServiceDeps) *Service { return &Service{d, make(chan struct{})} }

// Drain ends every Wait with the figures of this moment, because the process is about to stop. Call it once.
func (s *Service) Drain() { close(s.draining) }

// redisTimeout bounds each call to Redis that a request can do without.
const redisTimeout = time.Second

// Accept validates a request and writes the bulk. After it returns, no crash of a process can lose the bulk. Errors are message.Errors:
// invalid with paths below message_data, not_found for a channel that was deleted, unavailable; or access.ErrKeyTaken, and
// nothing is done.
func (s *Service) Accept(ctx context.Context, o Request) (*Bulk, error) {
	if _, err := check(ctx, o); err != nil {
		return nil, err
	}
	b := &Bulk{
		ID: uuid.Must(uuid.NewV7()), Channel: o.Channel.Key, Provider: o.Channel.Provider, Name: o.Name, Author: o.Author, MessageType: o.MessageType,
		Priority: o.Priority, Content: o.Content, Files: o.Files, Criteria: o.Criteria, Request: o.Request, Status: Processing,
		CreatedAt: time.Now().UTC().Truncate(time.Microsecond),
	}
	fault.Point(fault.BulkInserting)
	if err := s.deps.Store.InsertBulk(ctx, b, o.Key); err != nil {
		return nil, err
	}
	b.Files = nil // they are megabytes, and a caller may wait for the bulk
	fault.Point(fault.BulkInserted)
	s.deps.Observer.BulkEvent(ctx, "accepted", b.ID, "type", b.Channel.Type, "lead_ids", len(b.Criteria.LeadIDs))
	s.wake(ctx, b.ID)
	return b, nil
}

// wake is best effort: a runner also finds the bulk within Timing.Poll.
func (s *Service) wake(ctx context.Context, id uuid.UUID) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	if err := s.deps.Queue.Wake(ctx, id); err != nil {
		s.deps.Observer.BulkError(ctx, "wake", id, err)
	}
}

// Pause stops a bulk. Only messages whose delivery has begun are still sent.
func (s *Service) Pause(ctx context.Context, id uuid.UUID) (*View, error) {
	return s.move(ctx, id, "paused", []Status{Processing}, Paused)
}

// Resume continues a paused bulk from its cursors.
func (s *Service) Resume(ctx context.Context, id uuid.UUID) (*View, error) {
	return s.move(ctx, id, "resumed", []Status{Paused}, Processing)
}

// Cancel ends a bulk. Planning stops, pending messages become CANCELLED, and messages that are being sent run to their end.
func (s *Service) Cancel(ctx context.Context, id uuid.UUID) (*View, error) {
	return s.move(ctx, id, "cancelled", []Status{Processing, Paused}, Cancelled)
}

// move changes a bulk's status. Errors are message.Errors: not_found, and conflict for a bulk in another status.
func (s *Service) move(ctx context.Context, id uuid.UUID, event string, from []Status, to Status) (*View, error) {
	if err := s.deps.Lifecycle.Move(ctx, id, from, to); err != nil {
		return nil, err
	}
	s.deps.Observer.BulkEvent(ctx, event, id)
	if to != Paused {
		s.wake(ctx, id)
	}
	return s.Get(ctx, id)
}

// check validates a request's content and renders its templates once with sample values.
func check(ctx context.Context, o Request) (*render.Template, error) {
	errs := message.ValidateContent(o.Channel.Type, &o.Content)
	tpl, terrs := render.Compile(ctx, o.Channel.Type, o.Content)
	if errs = append(errs, terrs...); len(errs) == 0 {
		errs = tpl.Check(ctx, nil)
	}
	return tpl, message.Invalid(errs)
}

// View is a bulk with its figures at one moment. Until the bulk ends it also has the state of its channel, which may explain
// why the bulk makes no progress.
type View struct {
	*Bulk
	stats.Figures
	ChannelState  channel.State
	ChannelReason string
}

// Get returns a bulk's view. The figures come from its final counts, else from the counters, else from the database.
func (s *Service) Get(ctx context.Context, id uuid.UUID) (*View, error) {
	read := make(chan counted, 1)
	go func() { read <- s.counted(ctx, id) }() // concurrent with the row: this request is frequent
	b, err := s.deps.Store.Bulk(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.view(ctx, b, func() counted { return <-read })
}

// counted is a bulk's counters; ok is false when they are lost or Redis does not answer.
type counted struct {
	stats.Counts
	ok bool
}

func (s *Service) counted(ctx context.Context, id uuid.UUID) counted {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	counts, ok, err := s.deps.Counters.Read(ctx, id)
	return counted{counts, ok && err == nil}
}

// look returns the view of a row.
func (s *Service) look(ctx context.Context, b *Bulk) (*View, error) {
	return s.view(ctx, b, func() counted { return s.counted(ctx, b.ID) })
}

func (s *Service) view(ctx context.Context, b *Bulk, read func() counted) (*View, error) {
	if b.Final != nil {
		return &View{Bulk: b, Figures: stats.Compute(b.Total, *b.Final)}, nil
	}
	c := read()
	counts := c.Counts
	if !c.ok {
		var err error
		if counts, err = s.deps.Store.Tally(ctx, b.ID); err != nil {
			return nil, err
		}
	}
	v := &View{Bulk: b, Figures: stats.Compute(b.Total, counts)}
	ch, err := s.deps.Channels.Get(ctx, b.Channel)
	if message.IsCode(err, message.CodeNotFound) {
		v.ChannelState = channel.Deleted
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	if v.ChannelState, v.ChannelReason = ch.State, ch.StateReason; ch.State == channel.Active {
		sctx, cancel := context.WithTimeout(ctx, redisTimeout)
		defer cancel()
		v.ChannelState = s.deps.Health.State(sctx, b.Channel)
	}
	return v, nil
}

// List returns bulks that match a filter, newest first, beginning before an id.
func (s *Service) List(ctx context.Context, f Filter, before uuid.UUID, limit int) ([]View, error) {
	bulks, err := s.deps.Store.Bulks(ctx, f, before, limit)
	if err != nil {
		return nil, err
	}
	views := make([]View, 0, len(bulks))
	for i := range bulks {
		v, err := s.look(ctx, &bulks[i])
		if err != nil {
			return nil, err
		}
		views = append(views, *v)
	}
	return views, nil
}

const (
	minWaitPause = 10 * time.Millisecond // between two looks while waiting, at first
	maxWaitPause = 250 * time.Millisecond
)

// Wait returns the view of a bulk when it ends, after d, or when the process drains, whichever is first. It polls the row with
// growing pauses and holds no connection between two reads.
func (s *Service) Wait(ctx context.Context, id uuid.UUID, d time.Duration) (*View, error) {
	deadline := time.Now().Add(d)
	for pause := minWaitPause; ; pause = min(pause*2, maxWaitPause) {
		b, err := s.deps.Store.Bulk(ctx, id)
		if err != nil {
			return nil, err
		}
		left := time.Until(deadline)
		if b.Final != nil || left <= 0 {
			return s.look(ctx, b)
		}
		t := time.NewTimer(min(pause, left))
		select {
		case <-t.C:
		case <-s.draining:
			t.Stop()
			return s.look(ctx, b)
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

// maxTemplates bounds the cache of parsed templates: more bulks are seldom sent by one process at a time.
const maxTemplates = 1_000

// Templates caches the parsed templates of bulks, those used last. They never change, so entries do not expire. Its methods
// are safe for concurrent use.
type Templates struct {
	store  Store
	flight singleflight.Group // the first messages of a bulk arrive together: one of them parses
	cache  *lru.Cache[uuid.UUID, *render.Template]
}

// NewTemplates makes an empty cache over the bulks' rows.
func NewTemplates(store Store) *Templates {
	cache, err := lru.New[uuid.UUID, *render.Template](maxTemplates)
	if err != nil {
		panic(err) // only a size below 1 is an error
	}
	return &Templates{store: store, cache: cache}
}

// Template returns the parsed templates of a bulk. Errors are the Store's; they are not cached. The end of ctx does not end
// a read that other callers share.
func (t *Templates) Template(ctx context.Context, bulkID uuid.UUID) (*render.Template, error) {
	if tpl, ok := t.cache.Get(bulkID); ok {
		return tpl, nil
	}
	read, err, _ := t.flight.Do(bulkID.String(), func() (any, error) { return t.read(context.WithoutCancel(ctx), bulkID) })
	if err != nil {
		return nil, err
	}
	return read.(*render.Template), nil //nolint:forcetypeassert // read returns this type
}

func (t *Templates) read(ctx context.Context, bulkID uuid.UUID) (*render.Template, error) {
	b, err := t.store.Bulk(ctx, bulkID)
	if err != nil {
		return nil, err
	}
	tpl, errs := render.Compile(ctx, b.Channel.Type, b.Content)
	if len(errs) > 0 {
		return nil, message.Invalid(errs)
	}
	t.cache.Add(bulkID, tpl)
	return tpl, nil
}
