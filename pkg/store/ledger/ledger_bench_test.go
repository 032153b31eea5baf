package ledger_test

import (
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/seal"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// handlers is how many deliveries run beside each other in BenchmarkTakeAndSettle, for each processor.
const handlers = 250

func openBench(b *testing.B) (*storetest.Store, *channel.Channel) {
	b.Helper()
	sealer, err := seal.NewSealer(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	s := storetest.Open(b, testenv.Database(b, testenv.Postgres), storetest.Options{Sealer: sealer})
	ch := &channel.Channel{Key: channel.Key{ID: newID(), Type: message.Email}, Provider: "sendgrid", Name: "x", Sender: "a@acme.test", Currency: "USD", OnUnknown: channel.Hold, State: channel.Active}
	if err := s.InsertChannel(b.Context(), ch); err != nil {
		b.Fatal(err)
	}
	return s, ch
}

// BenchmarkTakeAndSettle is what the ledger does for one message of a bulk: it is loaded and claimed, and its outcome
// recorded. Many do so at once.
func BenchmarkTakeAndSettle(b *testing.B) {
	s, ch := openBench(b)
	n := b.N + 1
	ids := frozen(b, s, ch, n)
	var at atomic.Int64
	b.SetParallelism(handlers)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c := delivery.Claim{ID: ids[at.Add(1)], Token: uuid.New(), TTL: time.Minute, Most: 8}
			l, err := s.LoadAndClaim(b.Context(), c)
			if err != nil || !l.Claimed {
				b.Errorf("%+v, %v", l, err)
				return
			}
			if st, err := s.Settle(b.Context(), delivery.Row{ID: c.ID, Token: c.Token}.Sent(0)); err != nil || !st.OK {
				b.Errorf("%+v, %v", st, err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkSingle measures singles, one after the other: each is inserted as claimed, and its
// outcome recorded.
func BenchmarkSingle(b *testing.B) {
	s, ch := openBench(b)
	for _, keyed := range []bool{false, true} {
		b.Run(fmt.Sprintf("keyed=%t", keyed), func(b *testing.B) {
			for b.Loop() {
				now := store.Stamp(time.Now())
				m := &message.Message{
					ID: newID(), ChannelID: ch.ID, ChannelType: ch.Type, Provider: ch.Provider, Recipient: "ann@example.com", MessageType: message.Transactional,
					Priority: message.Normal, Content: &message.Content{Subject: "x", Text: "y"}, Status: message.Queued, CreatedAt: now, UpdatedAt: now, NextAttemptAt: &now,
				}
				e := delivery.Entry{Message: m, Claim: delivery.Claim{ID: m.ID, Token: uuid.New(), TTL: time.Minute, Most: 8}}
				if keyed {
					e.Key = &access.IdempotencyKey{Caller: "x", Hash: sha256.Sum256(m.ID[:])}
				}
				if in, err := s.Insert(b.Context(), e); err != nil || !in.Claimed {
					b.Fatalf("%+v, %v", in, err)
				}
				if st, err := s.Settle(b.Context(), delivery.Row{ID: m.ID, Token: e.Claim.Token}.Sent(0)); err != nil || !st.OK {
					b.Fatalf("%+v, %v", st, err)
				}
			}
		})
	}
}

// BenchmarkPlan measures one message of a plan, in a database without statistics. After a
// plan was taken over each of its addresses is looked for.
func BenchmarkPlan(b *testing.B) {
	for name, own := range map[string]bool{"own": true, "takenOver": false} {
		b.Run(name, func(b *testing.B) {
			s, ch := openBench(b)
			row, lease := leased(b, s, ch)
			b.ResetTimer()
			for planned := 0; planned < b.N; planned += benchPage {
				b.StopTimer()
				rows := benchRows()
				for i := range rows {
					rows[i].FirstSeen = own
				}
				b.StartTimer()
				if err := s.AddPage(b.Context(), bulk.PlanPage{Lease: lease, Bulk: row, Base: int64(planned), Rows: rows}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

const benchPage = 2_000

func benchRows() []bulk.PlannedRow {
	rows := make([]bulk.PlannedRow, benchPage)
	for i := range rows {
		id := newID()
		address := id.String() + "@example.com"
		rows[i] = bulk.PlannedRow{ID: id, LeadID: id, Recipient: address, Hash: message.HashAddress(address), Dedupe: true, FirstSeen: true, Status: message.Pending}
	}
	return rows
}

// leased writes a bulk and takes its lease.
func leased(b *testing.B, s *storetest.Store, ch *channel.Channel) (*bulk.Bulk, bulk.Lease) {
	b.Helper()
	row := &bulk.Bulk{ID: newID(), Channel: ch.Key, Provider: ch.Provider, MessageType: message.Marketing, Priority: message.Normal, Request: []byte(`{}`), Status: bulk.Processing, CreatedAt: store.Stamp(time.Now())}
	if err := s.InsertBulk(b.Context(), row, nil); err != nil {
		b.Fatal(err)
	}
	l := bulk.Lease{BulkID: row.ID, Token: uuid.New()}
	if _, err := s.Acquire(b.Context(), l, time.Hour); err != nil {
		b.Fatal(err)
	}
	return row, l
}

// frozen writes the messages of a bulk and returns their ids.
func frozen(b *testing.B, s *storetest.Store, ch *channel.Channel, n int) []uuid.UUID {
	b.Helper()
	row, lease := leased(b, s, ch)
	ids := make([]uuid.UUID, 0, n+1)
	for len(ids) <= n {
		rows := benchRows()
		leads := make([]message.Lead, len(rows))
		for i := range rows {
			leads[i] = message.Lead{ID: rows[i].LeadID, FirstName: "Ann", Email: rows[i].Recipient, CreatedAt: row.CreatedAt, UpdatedAt: row.CreatedAt}
		}
		must(b, s.InsertLeads(b.Context(), leads))
		base := int64(len(ids))
		for i := range rows {
			ids = append(ids, rows[i].ID)
		}
		if err := s.AddPage(b.Context(), bulk.PlanPage{Lease: lease, Bulk: row, Base: base, Rows: rows}); err != nil {
			b.Fatal(err)
		}
	}
	return ids
}
