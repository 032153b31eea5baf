package ledger_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

func TestClaimIsExclusiveAndFencesOutcomes(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		m := storetest.InsertSingle(t, s, nil)
		token, ok := storetest.Claim(t, s, m.ID, time.Minute)
		if !ok {
			t.Fatal("a waiting message cannot be claimed")
		}
		if _, ok := storetest.Claim(t, s, m.ID, time.Minute); ok {
			t.Fatal("claimed twice")
		}
		sentUnder := func(token uuid.UUID) delivery.Outcome {
			r := delivery.Response{Class: delivery.Accepted, ProviderMessageID: "SM1", HTTPStatus: 201}
			return delivery.Row{ID: m.ID, Token: token, Attempt: 1}.Sent(79).WithCall(r, time.Now())
		}
		if storetest.Settle(t, s, sentUnder(uuid.New())) {
			t.Fatal("an outcome with a foreign token took effect")
		}
		if !storetest.Settle(t, s, sentUnder(token)) {
			t.Fatal("the owner's outcome did not take effect")
		}
		if storetest.Settle(t, s, sentUnder(token)) {
			t.Fatal("settled twice")
		}
		got, attempts, err := s.Message(t.Context(), m.ID)
		must(t, err)
		if got.Status != message.Sent || got.ProviderMessageID != "SM1" || got.Cost != 79 || got.SentAt == nil || got.Attempt != 1 || got.NextAttemptAt != nil {
			t.Errorf("row %+v", got)
		}
		var outcomes []string
		for _, a := range attempts {
			outcomes = append(outcomes, a.Outcome)
		}
		slices.Sort(outcomes)
		if !slices.Equal(outcomes, []string{"late", "late", "sent"}) {
			t.Errorf("attempts %v: every outcome that came too late is evidence", outcomes)
		}
	})
}

// A single may be written as claimed, unless its recipient is suppressed. Repeated it is what it was.
func TestASingleIsWrittenWithItsClaim(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		entry := func(recipient string) delivery.Entry {
			now := store.Stamp(time.Now())
			m := &message.Message{
				ID: newID(), ChannelID: newID(), ChannelType: message.SMS, Recipient: recipient, MessageType: message.Transactional, Priority: message.High,
				Status: message.Queued, CreatedAt: now, UpdatedAt: now,
			}
			return delivery.Entry{Message: m, Claim: delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute}}
		}
		e := entry("+15550001111")
		for range 2 {
			if got := storetest.Insert(t, s, e); !got.Claimed || got.Suppressed != message.NoReason {
				t.Fatalf("%+v", got)
			}
		}
		l, err := s.Load(t.Context(), e.Message.ID)
		must(t, err)
		if l.Message.Status != message.Sending || l.Message.Attempt != 1 || l.ClaimToken != e.Claim.Token || l.ClaimExpired || l.Message.ClaimedAt == nil {
			t.Errorf("%+v", l)
		}
		if _, ok := storetest.Claim(t, s, e.Message.ID, time.Minute); ok {
			t.Error("claimed twice")
		}
		if !storetest.Settle(t, s, delivery.Row{ID: e.Message.ID, Token: e.Claim.Token}.Sent(0)) {
			t.Error("the claim is not in force")
		}
		if got := storetest.Insert(t, s, entry(e.Message.Recipient)); !got.Claimed {
			t.Error("a second message is not claimed")
		}
		other := e
		other.Claim.Token = uuid.New()
		if got := storetest.Insert(t, s, other); got.Claimed {
			t.Error("claimed by an insert that came late")
		}

		e = entry("+15550002222")
		hash := message.HashAddress(e.Message.Recipient)
		must(t, s.PutSuppression(t.Context(), &message.Suppression{ID: newID(), Type: message.SMS, Hash: hash, Reason: message.ManuallySuppressed, MessageTypes: message.MessageTypes, CreatedAt: time.Now()}))
		if got := storetest.Insert(t, s, e); got.Claimed || got.Suppressed != message.ManuallySuppressed {
			t.Errorf("%+v", got)
		}
		if l, err := s.Load(t.Context(), e.Message.ID); err != nil || l.Message.Status != message.Queued || l.Message.Attempt != 0 {
			t.Errorf("%+v, %v", l, err)
		}
	})
}

// A claim or an outcome whose answer was lost may be repeated, and changes nothing the second time.
func TestClaimsAndOutcomesMayBeRepeated(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		m := storetest.InsertSingle(t, s, nil)
		storetest.Insert(t, s, delivery.Entry{Message: m}) // so may the insert
		c := delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute}
		for range 2 {
			ok, err := s.Claim(t.Context(), c)
			must(t, err)
			if !ok {
				t.Error("the claim is not its owner's")
			}
		}
		if ok, err := s.Claim(t.Context(), delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute}); ok || err != nil {
			t.Errorf("another took it: %v, %v", ok, err)
		}
		if !storetest.Settle(t, s, delivery.Row{ID: m.ID, Token: c.Token}.Sent(0)) ||
			storetest.Settle(t, s, delivery.Row{ID: m.ID, Token: c.Token}.Sent(0)) {
			t.Error("an outcome takes effect once")
		}
		l, err := s.Load(t.Context(), m.ID)
		must(t, err)
		if l.Message.Attempt != 1 || l.Message.Status != message.Sent || l.ClaimToken != c.Token {
			t.Errorf("%+v", l.Message)
		}
	})
}

func TestGiveBackRetryAndUnknown(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		m := storetest.InsertSingle(t, s, nil)
		token, _ := storetest.Claim(t, s, m.ID, time.Minute)
		if !storetest.Settle(t, s, delivery.Row{ID: m.ID, Token: token, Single: true}.Release(message.ProviderUnavailable, time.Hour)) {
			t.Fatal("give back")
		}
		l, err := s.Load(t.Context(), m.ID)
		must(t, err)
		if l.Message.Attempt != 0 || l.Message.Status != message.Queued || l.Message.NextAttemptAt == nil || l.ClaimToken != token {
			t.Errorf("after give back: %+v", l.Message)
		}
		token, ok := storetest.Claim(t, s, m.ID, time.Minute)
		if !ok || !storetest.Settle(t, s, delivery.Row{ID: m.ID, Token: token}.Unknown(0)) {
			t.Fatal("unknown")
		}
		l, err = s.Load(t.Context(), m.ID)
		must(t, err)
		if l.Message.Unknowns != 1 || l.Message.Attempt != 1 || l.Message.NextAttemptAt != nil {
			t.Errorf("after unknown: %+v", l.Message)
		}
		if _, ok := storetest.Claim(t, s, m.ID, time.Minute); ok {
			t.Error("a settled message was claimed")
		}
	})
}

func TestPartsKeepTheClaim(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		m := storetest.InsertSingle(t, s, nil)
		token, _ := storetest.Claim(t, s, m.ID, time.Minute)
		first := delivery.Row{ID: m.ID, Token: token, Attempt: 1}.NextPart(time.Minute).
			WithCall(delivery.Response{Class: delivery.Accepted, ProviderMessageID: "mid.1"}, time.Now())
		if !storetest.Settle(t, s, first) {
			t.Fatal("first part")
		}
		l, err := s.Load(t.Context(), m.ID)
		must(t, err)
		if l.Message.Part != 1 || l.Message.Status != message.Sending || l.ClaimToken != token || l.ClaimExpired || l.Message.NextAttemptAt == nil {
			t.Errorf("between the parts: %+v", l)
		}
		if !storetest.Settle(t, s, delivery.Row{ID: m.ID, Token: token, Attempt: 1, Part: 1}.Sent(0).WithCall(delivery.Response{Class: delivery.Accepted, ProviderMessageID: "mid.2"}, time.Now())) {
			t.Fatal("second part")
		}
		got, attempts, err := s.Message(t.Context(), m.ID)
		must(t, err)
		if got.ProviderMessageID != "mid.2" || len(attempts) != 2 {
			t.Errorf("%s, %d attempts", got.ProviderMessageID, len(attempts))
		}
	})
}

// Many goroutines share statements; each must get its own answer.
func TestGroupedCallsGetTheirOwnAnswers(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		const n = 60
		var ids []uuid.UUID
		for range n {
			ids = append(ids, storetest.InsertSingle(t, s, nil).ID)
		}
		type result struct {
			claimed int
			err     error
		}
		results := make(chan result, 2*n)
		for _, id := range append(slices.Clone(ids), ids...) { // each is claimed twice at once
			go func() {
				token := uuid.New()
				ok, err := s.Claim(t.Context(), delivery.Claim{ID: id, Token: token, TTL: time.Minute})
				if !ok || err != nil {
					results <- result{0, err}
					return
				}
				settled, err := s.Settle(t.Context(), delivery.Row{ID: id, Token: token}.Sent(0).WithCall(delivery.Response{Class: delivery.Accepted, ProviderMessageID: id.String()}, time.Now()))
				if !settled.OK {
					results <- result{0, err}
					return
				}
				results <- result{1, err}
			}()
		}
		claimed := 0
		for range 2 * n {
			r := <-results
			must(t, r.err)
			claimed += r.claimed
		}
		if claimed != n {
			t.Errorf("%d claims of %d messages succeeded", claimed, n)
		}
		for _, id := range ids {
			l, err := s.Load(t.Context(), id)
			must(t, err)
			if l.Message.ProviderMessageID != id.String() {
				t.Fatalf("%s has the outcome of %s", id, l.Message.ProviderMessageID)
			}
		}
	})
}

func TestDueFindsForgottenMessages(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		past := store.Stamp(time.Now().Add(-time.Minute))
		queued := storetest.InsertSingle(t, s, func(m *message.Message) { m.NextAttemptAt = &past })
		storetest.InsertSingle(t, s, nil) // not due
		dead := storetest.InsertSingle(t, s, func(m *message.Message) { m.NextAttemptAt = &past })
		if _, ok := storetest.Claim(t, s, dead.ID, -time.Second); !ok {
			t.Fatal("claim")
		}
		due, err := s.Due(t.Context(), 10, time.Hour)
		must(t, err)
		got := map[uuid.UUID]bool{}
		for _, d := range due {
			got[d.ID] = d.Sending
		}
		if d := cmp.Diff(map[uuid.UUID]bool{queued.ID: false, dead.ID: true}, got); d != "" {
			t.Error(d)
		}
		l, err := s.Load(t.Context(), queued.ID)
		must(t, err)
		if l.Message.Generation != 0 {
			t.Errorf("generation %d: a message that waits keeps its task id", l.Message.Generation)
		}
		l, err = s.Load(t.Context(), dead.ID)
		must(t, err)
		if !l.ClaimExpired {
			t.Error("the expired claim does not show")
		}
		if again, err := s.Due(t.Context(), 10, time.Hour); err != nil || len(again) != 0 {
			t.Errorf("due twice: %v, %v", again, err)
		}
	})
}

// A message is loaded with every field of its lead that templates know, the times among them. With a claim either all of the
// times are loaded or none.
func TestCaseMessagesHaveTheTimesOfTheirLeads(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		created, contacted := time.Date(2020, 1, 31, 10, 30, 0, 123_456_000, time.UTC), time.Date(2024, 2, 29, 23, 59, 59, 0, time.UTC)
		var leads []uuid.UUID
		for _, last := range []*time.Time{&contacted, nil, &contacted, {}} {
			leads = append(leads, storetest.Lead(t, s, func(l *message.Lead) {
				l.CreatedAt, l.UpdatedAt, l.LastContactedAt = created, created.Add(time.Hour), last
			}))
		}
		b := storetest.InsertBulk(t, s, nil)
		for i, id := range append(leads, newID()) {
			m := storetest.InsertSingle(t, s, func(m *message.Message) {
				m.BulkID, m.LeadID, m.Seq, m.ChannelID, m.ChannelType, m.Recipient = b.ID, id, int64(i), b.Channel.ID, b.Channel.Type, newID().String()+"@example.com"
			})
			loaded, err := s.Load(t.Context(), m.ID)
			must(t, err)
			claimed, err := s.LoadAndClaim(t.Context(), delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute, Most: 2})
			must(t, err)
			if i == len(leads) {
				if loaded.Lead != nil || claimed.Claimed {
					t.Errorf("without a lead: %+v", loaded.Lead)
				}
				continue
			}
			for how, l := range map[string]*message.Lead{"loaded": loaded.Lead, "claimed": claimed.Lead} {
				if how == "claimed" && l != nil && l.UpdatedAt.IsZero() && l.CreatedAt.IsZero() && l.LastContactedAt == nil {
					continue
				}
				if l == nil || !l.CreatedAt.Equal(created) || !l.UpdatedAt.Equal(created.Add(time.Hour)) || (l.LastContactedAt == nil) != (i == 1) {
					t.Fatalf("%s, lead %d: %+v", how, i, l)
				}
				if want := []time.Time{contacted, {}, contacted, {}}[i]; i != 1 && !l.LastContactedAt.Equal(want) {
					t.Errorf("%s, lead %d was contacted at %s, want %s", how, i, l.LastContactedAt, want)
				}
			}
			if !claimed.Claimed {
				t.Errorf("message %d is not claimed", i)
			}
		}
	})
}

// Take claims a message that it loads, unless something refuses or delays it, and claims it for one of several.
func TestTakeClaimsWhatNothingDelays(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ch := &channel.Channel{Key: channel.Key{ID: newID(), Type: message.SMS}, Provider: "twilio", Name: "x", Sender: "+15550000000", Currency: "USD", OnUnknown: channel.Hold, State: channel.Active}
		must(t, s.InsertChannel(t.Context(), ch))
		b := storetest.InsertBulk(t, s, nil)
		seq := int64(0)
		put := func(change func(*message.Message)) *message.Message {
			seq++
			l := message.Lead{ID: newID(), FirstName: "Ann", Tags: []string{"vip"}, CreatedAt: time.Now(), UpdatedAt: time.Now()}
			must(t, s.InsertLeads(t.Context(), []message.Lead{l}))
			return storetest.InsertSingle(t, s, func(m *message.Message) {
				m.ChannelID, m.BulkID, m.LeadID, m.Seq, m.Recipient = ch.ID, b.ID, l.ID, seq, fmt.Sprintf("+1555000%04d", seq)
				if change != nil {
					change(m)
				}
			})
		}
		take := func(id uuid.UUID, token uuid.UUID) delivery.Loaded {
			t.Helper()
			l, err := s.LoadAndClaim(t.Context(), delivery.Claim{ID: id, Token: token, TTL: time.Minute, Most: 2})
			must(t, err)
			return l
		}
		m, token := put(nil), uuid.New()
		for range 2 { // the answer may have been lost
			l := take(m.ID, token)
			if !l.Claimed || l.Message.Attempt != 1 || l.Message.Recipient != m.Recipient || l.Message.Status != message.Sending || l.Message.BulkID != b.ID {
				t.Fatalf("%+v", l)
			}
			if l.ClaimToken != token || l.Lead == nil || l.Lead.ID != m.LeadID || l.Lead.FirstName != "Ann" || len(l.Lead.Tags) != 1 {
				t.Fatalf("%+v", l)
			}
		}
		if l := take(m.ID, uuid.New()); l.Claimed || l.Message.Status != message.Sending {
			t.Errorf("claimed twice: %+v", l)
		}
		if !storetest.Settle(t, s, delivery.Row{ID: m.ID, Token: token, Single: true}.Release("", 0)) {
			t.Error("the claim is not in force")
		}
		var wg sync.WaitGroup
		var won atomic.Int32
		for range 20 {
			wg.Go(func() {
				if l, err := s.LoadAndClaim(t.Context(), delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute, Most: 2}); err == nil && l.Claimed {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of 20 hold the claim", won.Load())
		}

		tried := put(nil)
		for range 2 {
			token, _ := storetest.Claim(t, s, tried.ID, time.Minute)
			storetest.Settle(t, s, delivery.Row{ID: tried.ID, Token: token, Single: true}.Retry("", 0))
		}
		suppressed := put(func(m *message.Message) { m.Recipient = "+15550002222" })
		hash := message.HashAddress(suppressed.Recipient)
		must(t, s.PutSuppression(t.Context(), &message.Suppression{ID: newID(), Type: message.SMS, Hash: hash, Reason: message.ManuallySuppressed, MessageTypes: message.MessageTypes, CreatedAt: time.Now()}))
		waiting := put(nil)
		orphan := put(func(m *message.Message) { m.ChannelID, m.NextAttemptAt = newID(), nil })
		must(t, s.DeleteChannel(t.Context(), channel.Key{ID: orphan.ChannelID, Type: orphan.ChannelType}))
		suspect := put(nil)
		must(t, s.Suspect(t.Context(), suspect.ID, message.Suspected))
		for name, c := range map[string]struct {
			id    uuid.UUID
			state channel.State
			rate  float64
		}{
			"tried too often": {tried.ID, channel.Active, 0}, "suppressed": {suppressed.ID, channel.Active, 0},
			"its channel is paused": {waiting.ID, channel.Paused, 0}, "its channel has a rate": {waiting.ID, channel.Active, 5},
			"without a channel": {orphan.ID, channel.Active, 0}, "a suspect": {suspect.ID, channel.Active, 0},
			"without its lead": {put(func(m *message.Message) { m.LeadID = newID() }).ID, channel.Active, 0},
			"a single":         {put(func(m *message.Message) { m.BulkID, m.LeadID = uuid.Nil, uuid.Nil }).ID, channel.Active, 0},
		} {
			_, err := s.UpdateChannel(t.Context(), ch.Key, func(ch *channel.Channel) error {
				ch.State, ch.RatePerSecond = c.state, c.rate
				return nil
			})
			must(t, err)
			l := take(c.id, uuid.New())
			if l.Claimed || l.Message.Status != message.Queued || l.Held != (c.state == channel.Paused) || (l.Suppressed != message.NoReason) != (name == "suppressed") {
				t.Errorf("%s: %+v", name, l)
			}
		}
		if _, err := s.LoadAndClaim(t.Context(), delivery.Claim{ID: newID(), Token: uuid.New(), TTL: time.Minute, Most: 2}); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("nothing is taken: %v", err)
		}
	})
}
