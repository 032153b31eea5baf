package store_test

import (
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

// pairs is how many pairs of writes TestFaultPairsOfWrites runs on each database.
var pairs = flag.Int("faults.pairs", 150, "pairs of concurrent writes on each database")

// races is what the pairs work on.
type races struct {
	t     *testing.T
	s     *storetest.Store
	db    *sql.DB
	leads *lead.Service
	ch    *channel.Channel
}

// race is one lead with its messages and bulks, on which two writes run at the same time.
type race struct {
	*races
	n      int
	lead   uuid.UUID
	bulk   *bulk.Bulk // not planned, PROCESSING or PAUSED
	lease  bulk.Lease
	sent   uuid.UUID // a message to be claimed or settled
	token  uuid.UUID // of the claim on it, uuid.Nil: none
	twice  bool      // both writes settle it: one of them has no effect
	resent uuid.UUID // an UNKNOWN message that is due
}

// secret is a word that only the lead of a race has.
func (r *race) secret() string { return fmt.Sprintf("Zecret%dx", r.n) }

func (r *race) email() string { return fmt.Sprintf("race%d@example.com", r.n) }

// write is one of the writes. do runs it as the first or the second of its pair. holds looks afterwards whether what was
// answered with success is there; erased says that the lead was erased.
type write struct {
	name  string
	do    func(r *race, i int) error
	holds func(r *race, i int, erased bool) error
}

func nothing(*race, int, bool) error { return nil }

// moves are the writes that change the status of a bulk.
var moves = map[string]struct {
	from []bulk.Status
	to   bulk.Status
}{

	"pause":  {[]bulk.Status{bulk.Processing}, bulk.Paused},
	"resume": {[]bulk.Status{bulk.Paused}, bulk.Processing},
	"cancel": {[]bulk.Status{bulk.Processing, bulk.Paused}, bulk.Cancelled},
}

func moving(name string) write {
	return write{name, func(r *race, _ int) error {
		return r.s.Move(r.t.Context(), r.bulk.ID, moves[name].from, moves[name].to)
	}, nothing}
}

var writes = []write{
	{"PATCH lead", func(r *race, i int) error {
		_, err := r.s.UpdateLead(r.t.Context(), r.lead, func(l *message.Lead) error {
			if l.CustomFields == nil {
				l.CustomFields = map[string]any{}
			}
			l.CustomFields[fmt.Sprintf("patch%d", i)] = r.secret()
			return nil
		})
		return err
	}, func(r *race, i int, erased bool) error {
		l, err := r.s.Lead(r.t.Context(), r.lead)
		if !erased && (err != nil || l.CustomFields[fmt.Sprintf("patch%d", i)] != r.secret()) {
			return fmt.Errorf("the change is lost: %v, %w", l, err)
		}
		return nil
	}},
	{"PATCH channel", func(r *race, i int) error {
		_, err := r.s.UpdateChannel(r.t.Context(), r.ch.Key, func(c *channel.Channel) error {
			*[]*string{&c.Name, &c.SenderName}[i] = fmt.Sprint(r.n)
			return nil
		})
		return err
	}, func(r *race, i int, _ bool) error {
		c, err := r.s.Channel(r.t.Context(), r.ch.Key)
		if err != nil || []string{c.Name, c.SenderName}[i] != fmt.Sprint(r.n) {
			return fmt.Errorf("the change is lost: %+v, %w", c, err)
		}
		return nil
	}},
	{"DELETE", func(r *race, _ int) error { return r.s.EraseLead(r.t.Context(), r.lead) }, nothing},
	{"import", func(r *race, i int) error {
		rep, err := r.leads.Import(r.t.Context(), lead.ImportOptions{Format: lead.CSV}, strings.NewReader(fmt.Sprintf("email,row%d\n%s,yes\n", i, r.email())))
		if err == nil && rep.Imported+rep.Updated != 1 {
			err = fmt.Errorf("%+v", rep)
		}
		return err
	}, func(r *race, i int, erased bool) error {
		var n, with int
		must(r.t, r.db.QueryRowContext(r.t.Context(), "SELECT count(*) FROM leads WHERE email = $1", r.email()).Scan(&n))
		must(r.t, r.db.QueryRowContext(r.t.Context(), fmt.Sprintf("SELECT count(*) FROM leads WHERE email = $1 AND CAST(custom_fields AS text) LIKE '%%row%d%%'", i),
			r.email()).Scan(&with))
		if n > 1 || !erased && with != 1 {
			return fmt.Errorf("%d leads with the address, %d with the row", n, with)
		}
		return nil
	}},
	moving("pause"), moving("resume"), moving("cancel"),
	{"plan", func(r *race, _ int) error {
		err := r.s.AddPage(r.t.Context(), bulk.PlanPage{Lease: r.lease, Bulk: r.bulk, Done: true, Rows: []bulk.PlannedRow{{
			ID: newID(), LeadID: r.lead, Recipient: r.email(), Hash: message.HashAddress(r.email()), Dedupe: true, Status: message.Pending,
		}}})
		if errors.Is(err, bulk.ErrLeaseLost) {
			return nil
		}
		return err
	}, nothing},
	{"claim", func(r *race, _ int) error {
		_, err := r.s.LoadAndClaim(r.t.Context(), delivery.Claim{ID: r.sent, Token: uuid.New(), TTL: time.Minute, Most: 8})
		return err
	}, nothing},
	{"settle", func(r *race, _ int) error {
		row := delivery.Row{ID: r.sent, Token: r.token}
		o := []delivery.Outcome{
			row.Sent(0), row.Failed(message.RecipientRefused, nil), row.Retry("", time.Minute), row.Unknown(time.Minute), row.NextPart(time.Minute),
		}[r.n%5]
		st, err := r.s.Settle(r.t.Context(), o)
		if err == nil && !r.twice && !st.OK {
			err = errors.New("the outcome under a claim had no effect")
		}
		return err
	}, nothing},
	{"resend", func(r *race, _ int) error {
		_, err := r.s.Due(r.t.Context(), 1_000, time.Hour)
		return err
	}, nothing},
}

// begin makes what a pair of writes works on.
func (w *races) begin(n int, a, b write) *race {
	t, s := w.t, w.s
	r := &race{races: w, n: n}
	now := store.Stamp(time.Now())
	l := message.Lead{ID: newID(), FirstName: r.secret(), Email: r.email(), CreatedAt: now, UpdatedAt: now}
	r.lead = l.ID
	must(t, s.InsertLeads(t.Context(), []message.Lead{l}))
	newBulk := func() *bulk.Bulk {
		b := &bulk.Bulk{
			ID: newID(), Channel: w.ch.Key, Provider: "sendgrid", MessageType: message.Marketing, Priority: message.Normal, Content: message.Content{Subject: "s", Text: "t"},
			Request: []byte(`{"bulk_settings":{"search_keyword":"` + r.email() + `"}}`), Status: bulk.Processing, CreatedAt: now,
		}
		must(t, s.InsertBulk(t.Context(), b, nil))
		return b
	}
	r.bulk = newBulk()
	if (a.name == "resume" || b.name == "resume") && a.name != "pause" && b.name != "pause" {
		must(t, s.Move(t.Context(), r.bulk.ID, []bulk.Status{bulk.Processing}, bulk.Paused))
	} else {
		r.lease, _ = storetest.Acquire(t, s, r.bulk.ID, time.Minute)
	}
	row := func(bulkID uuid.UUID) uuid.UUID {
		return storetest.InsertSingle(t, s, func(m *message.Message) {
			m.BulkID, m.LeadID, m.ChannelID, m.ChannelType, m.Recipient, m.Status = bulkID, l.ID, w.ch.ID, w.ch.Type, r.email(), message.Pending
			m.Metadata = []byte(`{"of":"` + r.secret() + `"}`)
			m.NextAttemptAt = nil
		}).ID
	}
	r.sent, r.resent = row(newBulk().ID), row(newBulk().ID)
	if a.name == "settle" || b.name == "settle" {
		var ok bool
		if r.token, ok = storetest.Claim(t, s, r.sent, time.Minute); !ok {
			t.Fatal("claim")
		}
	}
	r.twice = a.name == b.name
	token, _ := storetest.Claim(t, s, r.resent, time.Minute)
	storetest.Settle(t, s, delivery.Row{ID: r.resent, Token: token}.Unknown(time.Nanosecond))
	return r
}

// serial says whether the answers of two moves and the status after them are those of one order of the two.
func (r *race) serial(begin bulk.Status, names [2]string, errs [2]error) bool {
	after, err := r.s.Bulk(r.t.Context(), r.bulk.ID)
	must(r.t, err)
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		status, same := begin, true
		for _, i := range order {
			m, isMove := moves[names[i]]
			switch {
			case !isMove:
			case slices.Contains(m.from, status) && errs[i] == nil:
				status = m.to
			case slices.Contains(m.from, status) != (errs[i] == nil):
				same = false
			}
		}
		if same && status == after.Status {
			return true
		}
	}
	return false
}

// readable counts the rows that still name the lead.
func (r *race) readable() (n int) {
	for _, query := range []string{
		"SELECT count(*) FROM leads WHERE first_name = $2 AND id = $1",
		"SELECT count(*) FROM messages WHERE lead_id = $1 AND $2 <> '' AND (recipient <> '' OR address_hash IS NOT NULL OR content IS NOT NULL OR metadata IS NOT NULL)",
	} {
		var found int
		must(r.t, r.db.QueryRowContext(r.t.Context(), query, r.lead.String(), r.secret()).Scan(&found))
		n += found
	}
	return n
}

// Two writes at the same time on one lead, channel or bulk leave what one after the other would: no change that was answered
// with success is lost, and nothing of an erased lead can be read.
func TestFaultPairsOfWrites(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		ch := storetest.Channel(t, s, message.Email)
		w := &races{t, s, db, lead.NewService(s, s, s), ch}
		random := rand.New(rand.NewPCG(1, 2))
		var erased []string
		for n := range *pairs {
			a, b := writes[random.IntN(len(writes))], writes[random.IntN(len(writes))]
			r := w.begin(n, a, b)
			begin, err := s.Bulk(t.Context(), r.bulk.ID)
			must(t, err)
			errs := [2]error(storetest.Together(func() error { return a.do(r, 0) }, func() error { return b.do(r, 1) }))
			gone := a.name == "DELETE" && errs[0] == nil || b.name == "DELETE" && errs[1] == nil
			for i, one := range []write{a, b} {
				if err := errs[i]; err != nil {
					if !message.IsCode(err, message.CodeConflict) && !message.IsCode(err, message.CodeNotFound) {
						t.Errorf("%s beside %s: %v", one.name, []write{b, a}[i].name, err)
					}
					continue
				}
				if err := one.holds(r, i, gone); err != nil {
					t.Errorf("%s beside %s: %v", one.name, []write{b, a}[i].name, err)
				}
			}
			if !r.serial(begin.Status, [2]string{a.name, b.name}, errs) {
				t.Errorf("%s beside %s: no order explains %v", a.name, b.name, errs)
			}
			if gone {
				erased = append(erased, r.secret())
				if left := r.readable(); left != 0 {
					t.Errorf("%s beside %s: %d rows still name the erased lead", a.name, b.name, left)
				}
			}
			if t.Failed() {
				t.FailNow()
			}
		}
		if len(erased) == 0 {
			t.Error("no lead was erased")
		}
		if found := storetest.Readable(t, db, erased...); found != nil {
			t.Errorf("still readable: %v", found)
		}
		t.Logf("%d pairs, %d leads erased", *pairs, len(erased))
	})
}
