package delivery_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	_ "github.com/glebarez/go-sqlite" // the driver of the database beside the store
	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider/vendors"
	"herald/pkg/seal"
)

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// exec changes the world's database beside the store.
func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.TrimPrefix(w.url, "sqlite://")+"?_pragma=busy_timeout(10000)")
	w.check(err)
	defer db.Close()
	_, err = db.ExecContext(w.t.Context(), query, args...)
	w.check(err)
}

// leadOf is the lead of a message.
func (w *world) leadOf(id uuid.UUID) uuid.UUID { return w.load(id).LeadID }

// A message that may have been delivered once never ends as if it had not been.
func TestFaultPossibleDeliveryNeverEndsAsNone(t *testing.T) {
	invalid := refused
	invalid.Reason = message.ContentRefused
	for name, c := range map[string]struct {
		before func(w *world, id uuid.UUID)
		answer delivery.Response
		reason message.Reason
		sends  int
	}{
		"refused the second time": {nil, refused, message.RecipientRefused, 2},
		"its content is refused":  {nil, invalid, message.ContentRefused, 2},
		"its own sender is refused": {nil, delivery.Response{
			Class: delivery.NotSent, Scope: delivery.ScopeMessage, Reason: message.SenderRefused,
		}, message.SenderRefused, 2},
		"suppressed meanwhile": {func(w *world, id uuid.UUID) {
			w.check(w.store.PutSuppression(w.t.Context(), &message.Suppression{
				ID: uuid.New(), Type: message.Email, Hash: message.HashAddress(w.load(id).Recipient), Reason: message.Unsubscribed,
				MessageTypes: message.MessageTypes, CreatedAt: time.Now(),
			}))
		}, accepted, message.Unsubscribed, 1},
		"out of attempts": {func(w *world, id uuid.UUID) {
			w.exec("UPDATE messages SET attempt = 8 WHERE id = ?", id.String())
		}, accepted, message.Poison, 1},
		"unreachable at its last attempt": {func(w *world, id uuid.UUID) {
			w.exec("UPDATE messages SET attempt = 7 WHERE id = ?", id.String())
		}, unreachable, message.Unreachable, 2},
		"no longer renders": {func(w *world, _ uuid.UUID) { w.content.Text = "{{ nothing }}" }, accepted, message.RenderInvalid, 1},
		"cancelled": {func(w *world, id uuid.UUID) {
			w.check(w.store.Cancel(w.t.Context(), []uuid.UUID{id}))
		}, accepted, message.WasCancelled, 1},
		"its lead is erased": {func(w *world, id uuid.UUID) {
			w.check(w.store.EraseLead(w.t.Context(), w.leadOf(id)))
		}, accepted, message.Erased, 1},
	} {
		w := newWorld(t)
		w.answers = []delivery.Response{lost, c.answer}
		w.deps.Timing.UnknownHold = time.Nanosecond
		id := w.row(nil)
		w.run(id)
		if _, err := w.d().Sweep(t.Context(), w.store); err != nil || w.load(id).Status != message.Pending {
			t.Fatalf("%s: %+v, %v", name, w.load(id), err)
		}
		if c.before != nil {
			c.before(w, id)
		}
		w.run(id)
		m := w.load(id)
		if m.Status != message.Unknown || m.Reason != c.reason || m.NextAttemptAt != nil || m.Unknowns != 1 || w.sends != c.sends {
			t.Errorf("%s: %s %q, unknowns %d, next attempt %v, %d sends", name, m.Status, m.Reason, m.Unknowns, m.NextAttemptAt, w.sends)
		}
	}
}

// A message of several parts whose first part went out ends UNKNOWN when a later part does not go.
func TestFaultLaterPartsAfterTheFirst(t *testing.T) {
	for name, c := range map[string]struct {
		second delivery.Response
		erase  bool
		reason message.Reason
		sends  int
	}{
		"refused": {refused, false, message.RecipientRefused, 2}, "erased between the parts": {accepted, true, message.Erased, 1},
	} {
		w := newWorld(t)
		w.parts, w.answers = 2, []delivery.Response{accepted, c.second}
		id := w.row(nil)
		if c.erase {
			lead := w.leadOf(id)
			w.onSend = func() { w.check(w.store.EraseLead(t.Context(), lead)) }
		}
		w.run(id)
		if m := w.load(id); m.Status != message.Unknown || m.Reason != c.reason || m.Part != 1 || w.sends != c.sends {
			t.Errorf("%s: %s %q, part %d, %d sends", name, m.Status, m.Reason, m.Part, w.sends)
		}
	}
}

// A lead is erased while the provider has its message: the provider is not called again after any answer.
func TestFaultErasureWhileSending(t *testing.T) {
	for name, c := range map[string]struct {
		answer delivery.Response
		status message.Status
	}{
		"accepted": {accepted, message.Sent}, "refused": {refused, message.Failed}, "unreachable": {unreachable, message.Skipped},
		"throttled": {throttled, message.Skipped}, "dead": {dead, message.Skipped}, "not known": {lost, message.Unknown},
	} {
		w := newWorld(t)
		w.answers = []delivery.Response{c.answer}
		w.deps.Timing.UnknownHold, w.deps.Timing.Watch = time.Nanosecond, 0
		id := w.row(nil)
		lead := w.leadOf(id)
		w.onSend = func() { w.check(w.store.EraseLead(t.Context(), lead)) }
		res := w.run(id)
		for range 2 {
			w.run(id)
			if _, err := w.d().Sweep(t.Context(), w.store); err != nil {
				t.Fatal(err)
			}
		}
		m := w.load(id)
		if res.Status != c.status || res.Again != 0 || m.Status != c.status || m.Recipient != "" || w.sends != 1 || len(w.later) != 0 {
			t.Errorf("%s: result %+v, row %s %q to %q, %d sends", name, res, m.Status, m.Reason, m.Recipient, w.sends)
		}
		if len(w.marks) == 0 || w.marks[0].Status != c.status || w.marks[0].Waiting {
			t.Errorf("%s: counted %+v", name, w.marks)
		}
	}
}

// A message whose lead no longer exists is emptied, though no erasure has touched its row.
func TestFaultAMessageWithoutItsLead(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	id := w.row(func(m *message.Message) { m.LeadID = uuid.New() })
	res := w.run(id)
	if m := w.load(id); res.Status != message.Skipped || m.Reason != message.Erased || m.Recipient != "" || w.sends != 0 || len(w.marks) != 1 {
		t.Errorf("%+v, row %+v, marks %+v", res, m, w.marks)
	}
}

// vanishing is an Inserter whose lead is erased before the first insert.
type vanishing struct {
	delivery.Inserter
	erase func()
}

// Insert implements delivery.Inserter.
func (v *vanishing) Insert(ctx context.Context, e delivery.Entry) (delivery.Inserted, error) {
	if v.erase != nil {
		v.erase()
		v.erase = nil
	}
	return v.Inserter.Insert(ctx, e)
}

// A single whose lead is erased between the reading and the writing is made again without the lead.
func TestFaultErasureBeforeASingleIsWritten(t *testing.T) {
	for _, named := range []bool{true, false} {
		w := newWorld(t)
		w.answers = []delivery.Response{accepted}
		lead := message.Lead{ID: uuid.New(), FirstName: "Annabel", Email: "ann@example.com", CreatedAt: time.Now(), UpdatedAt: time.Now()}
		w.check(w.store.InsertLeads(t.Context(), []message.Lead{lead}))
		s := w.senderWith(&vanishing{w.store, func() { w.check(w.store.EraseLead(t.Context(), lead.ID)) }})
		req := delivery.SendRequest{
			Channel: w.ch, LeadID: lead.ID, Content: message.Content{Subject: "s", Text: "Hi {{ first_name | default: 'there' }}"},
			MessageType: message.Transactional, Priority: message.High,
		}
		if named {
			req.Recipient = "given@example.com"
		}
		sent, err := s.Send(t.Context(), req)
		if named && (err != nil || sent.Status != message.Sent || w.last.Content.Text != "Hi there" || w.last.Recipient != "given@example.com") {
			t.Errorf("%+v, %v, sent %+v", sent, err, w.last)
		}
		if !named && !message.IsCode(err, message.CodeInvalid) {
			t.Errorf("sent to the address of an erased lead: %+v, %v", sent, err)
		}
	}
}

// What a provider writes is made storable before it becomes an outcome.
func TestFaultWordsOfTheProvider(t *testing.T) {
	for name, text := range map[string]string{
		"NUL": "SM\u0000abc", "invalid UTF-8": "SM\xff\xfeabc", "line ends": "SM\r\nabc", "long": "SM" + strings.Repeat("ä", 100_000), "separators": "SM\u2028abc",
	} {
		for class, r := range map[string]delivery.Response{
			"accepted": {Class: delivery.Accepted, ProviderMessageID: text},
			"refused":  {Class: delivery.Refused, Reason: message.ProviderRefused, Failure: &message.Failure{Code: text, Text: text}},
		} {
			w := newWorld(t)
			w.answers = []delivery.Response{r}
			id := w.row(nil)
			res := w.run(id)
			m := w.load(id)
			got := m.ProviderMessageID
			if class == "refused" {
				got = m.Failure.Code
			}
			if res.Status == message.Unknown || !m.Status.Accepted() && m.Status != message.Failed {
				t.Errorf("%s, %s: %+v", name, class, m)
			}
			if !strings.HasPrefix(got, "SM") || !utf8.ValidString(got) || len(got) > 256 || strings.ContainsAny(got, "\x00\r\n\u2028") {
				t.Errorf("%s, %s: %q is stored", name, class, got)
			}
		}
	}
}

// An outcome is given up for one reason only: the database refuses its data, with and without the provider's words.
func TestFaultOutcomesAreTriedAgain(t *testing.T) {
	readOnly := fmt.Errorf("settle the message: %w", errors.New("cannot execute UPDATE in a read-only transaction (SQLSTATE 25006)"))
	data := message.Errorf(message.CodeInvalid, "the database refuses a value")
	for name, c := range map[string]struct {
		fail   int
		err    error
		status message.Status
	}{
		"read-only": {4, readOnly, message.Sent}, "unavailable": {4, message.Unavailable("the database", nil), message.Sent},
		"an error of no known kind":       {4, errors.New("the run broke off"), message.Sent},
		"data, with the provider's words": {1, data, message.Sent}, "data, without them too": {2, data, message.Sending},
	} {
		w := newWorld(t)
		w.answers = []delivery.Response{accepted}
		w.deps.Ledger = &forgetful{w.store, c.fail, c.err}
		id := w.row(nil)
		_, err := w.d().Run(t.Context(), id)
		if m := w.load(id); m.Status != c.status || (err == nil) != (c.status == message.Sent) || w.sends != 1 {
			t.Errorf("%s: %s, %v, %d sends", name, m.Status, err, w.sends)
		}
	}
}

// broken is a ledger that claims, and whose first answer of one kind cannot be read.
type broken struct {
	delivery.Ledger
	take, claim bool
}

// LoadAndClaim implements delivery.Ledger.
func (b *broken) LoadAndClaim(ctx context.Context, c delivery.Claim) (delivery.Loaded, error) {
	l, err := b.Ledger.LoadAndClaim(ctx, c)
	if b.take && err == nil {
		b.take = false
		return delivery.Loaded{}, errors.New("cannot scan")
	}
	return l, err
}

// Claim implements delivery.Ledger.
func (b *broken) Claim(ctx context.Context, c delivery.Claim) (bool, error) {
	ok, err := b.Ledger.Claim(ctx, c)
	if b.claim && err == nil {
		b.claim = false
		return false, errors.New("cannot scan")
	}
	return ok, err
}

// A claim whose answer cannot be read is released, and not left to become UNKNOWN.
func TestFaultUnreadableClaimsAreReleased(t *testing.T) {
	for name, suspicion := range map[string]message.Suspect{"as it is loaded": message.NotSuspect, "just before it is sent": message.Suspected} {
		w := newWorld(t)
		w.answers = []delivery.Response{accepted}
		id := w.row(nil)
		w.check(w.store.Suspect(t.Context(), id, suspicion)) // a suspect is not claimed as it is loaded
		w.deps.Ledger = &broken{w.store, suspicion == message.NotSuspect, suspicion != message.NotSuspect}
		if _, err := w.d().Run(t.Context(), id); err == nil {
			t.Errorf("%s: no error", name)
		}
		if m := w.load(id); m.Status != message.Pending || m.Attempt != 0 || w.sends != 0 {
			t.Errorf("%s: %s, attempt %d, %d sends", name, m.Status, m.Attempt, w.sends)
		}
		if res := w.run(id); res.Status != message.Sent {
			t.Errorf("%s: afterwards %+v", name, res)
		}
	}
}

// A panic in a delivery is that task's error: the claim is given up, and a message that always causes one comes to an end.
func TestFaultPanicInADelivery(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	w.panics = true // in the limiter, before the call
	id := w.row(nil)
	for range delivery.MaxAttempts {
		if _, err := w.d().Run(t.Context(), id); err == nil || !strings.Contains(err.Error(), "panic") {
			t.Fatalf("%v", err)
		}
		if m := w.load(id); m.Status != message.Pending {
			t.Fatalf("%+v", m)
		}
	}
	if res := w.run(id); res.Status != message.Failed || res.Reason != message.Poison || w.sends != 0 {
		t.Errorf("%+v, %d sends", res, w.sends)
	}
	// Unclaimed, the second panic ends it.
	suspect := w.row(func(m *message.Message) { m.Recipient = "y@example.com" })
	w.check(w.store.Suspect(t.Context(), suspect, message.Suspected))
	if res, err := w.d().Run(t.Context(), suspect); err != nil || res.Reason != message.RenderCrashed {
		t.Errorf("%+v, %v", res, err)
	}
	w.panics = false
	if res := w.run(w.row(func(m *message.Message) { m.Recipient = "z@example.com" })); res.Status != message.Sent {
		t.Errorf("the next message: %+v", res)
	}
}

// A suspect is rendered alone and on record. One that ended its process while it was rendered so is not rendered a third time.
func TestFaultSuspects(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	var ids []uuid.UUID
	for i := range 8 {
		id := w.row(func(m *message.Message) { m.Recipient = fmt.Sprintf("x%d@example.com", i) })
		w.check(w.store.SuspectMessages(t.Context(), []uuid.UUID{id}))
		ids = append(ids, id)
	}
	w.onRead = func() {
		rendering := 0
		for _, id := range ids {
			if w.load(id).Suspect == message.SuspectRendering {
				rendering++
			}
		}
		if rendering != 1 {
			t.Errorf("%d suspects are rendered at a time", rendering)
		}
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			if res, err := w.d().Run(t.Context(), id); err != nil || res.Status != message.Sent {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
	wg.Wait()
	w.onRead = nil
	crashed := w.row(func(m *message.Message) { m.Recipient = "crashed@example.com" })
	w.check(w.store.Suspect(t.Context(), crashed, message.SuspectRendering)) // its process ended here
	sends := w.sends
	if res := w.run(crashed); res.Status != message.Failed || res.Reason != message.RenderCrashed || w.sends != sends {
		t.Errorf("%+v, %d sends", res, w.sends-sends)
	}
	// A suspect that is postponed has not crashed.
	waits := w.row(func(m *message.Message) { m.Recipient = "waits@example.com" })
	w.check(w.store.Suspect(t.Context(), waits, message.Suspected))
	w.limit = time.Hour
	w.run(waits)
	w.limit = 0
	if res := w.run(waits); res.Status != message.Sent {
		t.Errorf("a suspect that waited: %+v", res)
	}
}

// Messages whose channel was deleted end.
func TestFaultDeletedChannel(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	open, held := w.row(nil), w.row(func(m *message.Message) { m.BulkID, m.Recipient = uuid.New(), "held@example.com" })
	if ok, err := w.store.Claim(t.Context(), delivery.Claim{ID: held, Token: uuid.New(), TTL: -time.Second}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	single := w.keyedRow(0)
	w.exec("DELETE FROM channels")
	for id, want := range map[uuid.UUID]message.Status{open: message.Failed, single: message.Failed} {
		if res := w.run(id); res.Status != want || res.Reason != message.ChannelDeleted || w.sends != 0 {
			t.Errorf("%+v, %d sends", res, w.sends)
		}
	}
	w.check(w.d().Rescue(t.Context(), held))
	if m := w.load(held); m.Status != message.Unknown || m.NextAttemptAt != nil {
		t.Errorf("%+v", m)
	}
}

// A row that cannot be decoded fails alone.
func TestFaultUndecodableRows(t *testing.T) {
	for name, damage := range map[string]string{
		"custom fields": "UPDATE leads SET custom_fields = '[1]' WHERE id = (SELECT lead_id FROM messages WHERE id = ?)",
		"tags":          "UPDATE leads SET tags = '{' WHERE id = (SELECT lead_id FROM messages WHERE id = ?)",
		"content":       "UPDATE messages SET content = '{\"subject\": 1}' WHERE id = ?",
	} {
		w := newWorld(t)
		w.answers = []delivery.Response{accepted}
		bad, good := w.row(nil), w.row(func(m *message.Message) { m.Recipient = "good@example.com" })
		w.exec(damage, bad.String())
		var wg sync.WaitGroup
		for id, want := range map[uuid.UUID]message.Status{bad: message.Failed, good: message.Sent} {
			wg.Go(func() {
				if res, err := w.d().Run(t.Context(), id); err != nil || res.Status != want {
					t.Errorf("%s: %+v, %v, want %s", name, res, err, want)
				}
			})
		}
		wg.Wait()
		if m, _, err := w.store.Message(t.Context(), bad); err != nil || m.Status != message.Failed || m.Reason != message.RenderInvalid {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

// A message is sent and charged over its channel as it was when the message was claimed, not as it was cached before.
func TestFaultChannelsAreAsNewAsTheLedger(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	cached, elsewhere := channel.NewRegistry(w.store, w.store, w.store, vendors.All.Providers()), channel.NewRegistry(w.store, w.store, w.store, vendors.All.Providers())
	w.deps.Channels = cached
	change := func(price message.Micros, rate float64) {
		_, err := elsewhere.Update(t.Context(), w.ch.Key, func(c *channel.Channel) error {
			c.Price, c.RatePerSecond, c.Credentials = price, rate, map[string]seal.Secret{"api_key": seal.NewSecret(fmt.Sprint(price))}
			c.Currency, c.Name = "USD", "n"
			return nil
		})
		w.check(err)
	}
	change(1000, 0)
	stale, err := cached.Get(t.Context(), w.ch.Key)
	w.check(err)
	price := message.Micros(7000)
	send := map[string]func() message.Micros{
		"claimed as it is loaded":     func() message.Micros { return w.run(w.row(nil)).Cost },
		"claimed just before it goes": func() message.Micros { return w.run(w.suspectRow()).Cost },
		"a single": func() message.Micros {
			sent, err := w.sender().Send(t.Context(), delivery.SendRequest{
				Channel: stale, Recipient: "x@example.com", Content: message.Content{Subject: "s", Text: "t"}, MessageType: message.Transactional, Priority: message.High,
			})
			w.check(err)
			return sent.Cost
		},
	}
	for name, do := range send {
		price += 1000
		if _, err := cached.Get(t.Context(), w.ch.Key); err != nil { // it is cached now
			t.Fatal(err)
		}
		change(price, 0)
		if got := do(); got != price || w.last.Channel.Credentials["api_key"].Reveal() != fmt.Sprint(price) {
			t.Errorf("%s: charged %d, want %d", name, got, price)
		}
	}
}

// suspectRow is a row that is not claimed as it is loaded.
func (w *world) suspectRow() uuid.UUID {
	w.t.Helper()
	id := w.row(func(m *message.Message) { m.Recipient = "suspect@example.com" })
	w.check(w.store.Suspect(w.t.Context(), id, message.Suspected))
	return id
}
