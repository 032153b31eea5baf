package records_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

func TestLeads(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		now := store.Stamp(time.Now())
		full := message.Lead{
			ID: newID(), FirstName: "Zoë", LastName: "O'Hara", Email: "Zoe@Example.com", Phone: "+4712345678", InstagramID: "178414000",
			Company: `50% "Ünits" \ Co`, Title: "CTO", Status: "new", Source: "web", City: "Oslo", State: "Oslo", Country: "NO",
			Timezone: "Europe/Oslo", Language: "nb", AssigneeID: "user-1", Tags: []string{"b", "a", "Import 10/05/25"},
			CustomFields: map[string]any{"plan": "gold", "seats": json.Number("3.50"), "id": json.Number("9007199254740993"), "list": []any{"x", json.Number("1")}, "ok": true}, CreatedAt: now, UpdatedAt: now,
			LastContactedAt: &now,
		}
		bare := message.Lead{ID: newID(), Email: "bare@example.com", CreatedAt: now, UpdatedAt: now}
		must(t, s.InsertLeads(ctx, []message.Lead{full, bare}))
		got, err := s.Lead(ctx, full.ID)
		must(t, err)
		if d := cmp.Diff(&full, got); d != "" {
			t.Error(d)
		}
		_, err = s.UpdateLead(ctx, full.ID, func(l *message.Lead) error {
			l.Tags, l.Company, l.CustomFields = []string{"c", "c"}, "New", nil
			return nil
		})
		must(t, err)
		got, err = s.Lead(ctx, full.ID)
		must(t, err)
		if !slices.Equal(got.Tags, []string{"c"}) || got.Company != "New" || got.CustomFields != nil {
			t.Errorf("after the second write: %+v", got)
		}
		if _, err := s.Lead(ctx, newID()); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("an unknown lead: %v", err)
		}
		list, err := s.Leads(ctx, nil, uuid.Nil, 10)
		must(t, err)
		if len(list) != 2 || list[0].ID.String() > list[1].ID.String() {
			t.Errorf("list: %d", len(list))
		}
		if list[0].LastContactedAt == nil || !list[0].LastContactedAt.Equal(now) || list[1].LastContactedAt != nil {
			t.Errorf("contacted %v and %v", list[0].LastContactedAt, list[1].LastContactedAt)
		}
		next, err := s.Leads(ctx, nil, list[0].ID, 10)
		must(t, err)
		if len(next) != 1 || next[0].ID != list[1].ID {
			t.Errorf("next page: %+v", next)
		}
		must(t, s.MergeLeads(ctx, lead.Batch{
			Importer: newID(), IDs: []uuid.UUID{bare.ID}, Merge: func(stored []message.Lead) (created, updated []message.Lead) {
				stored[0].City = "Bergen"
				return nil, stored
			},
		}))
		if l, err := s.Lead(ctx, bare.ID); err != nil || l.City != "Bergen" {
			t.Errorf("after a merge: %+v, %v", l, err)
		}
		var match []message.Lead
		must(t, s.MergeLeads(ctx, lead.Batch{
			Importer: newID(), IDs: []uuid.UUID{bare.ID}, Emails: []string{"zoe@example.com"}, Phones: []string{"+4712345678"},
			Merge: func(stored []message.Lead) (created, updated []message.Lead) {
				match = stored
				return nil, nil
			},
		}))
		if len(match) != 2 {
			t.Errorf("matched %d leads, want 2", len(match))
		}
	})
}

// Concurrent updates of one lead from two processes are all kept, of one field or several.
func TestFaultUpdatesOfOneLead(t *testing.T) {
	const rounds = 100
	each(t, func(t *testing.T, s *storetest.Store) {
		a, b := s, storetest.Another(t, s)
		ctx := t.Context()
		id := storetest.Lead(t, a, nil)
		update := func(s *storetest.Store, change func(*message.Lead)) func() error {
			return func() error {
				_, err := s.UpdateLead(ctx, id, func(l *message.Lead) error {
					change(l)
					return nil
				})
				return err
			}
		}
		for i := range rounds {
			want := fmt.Sprint(i)
			must(t, errors.Join(storetest.Together(
				update(a, func(l *message.Lead) { l.Company = want }),
				update(b, func(l *message.Lead) { l.City = want }),
				update(b, func(l *message.Lead) { l.Tags = append(l.Tags, want) }), // built on what is there: none is lost
				update(a, func(l *message.Lead) { l.Tags = append(l.Tags, "and "+want) }),
				update(a, func(l *message.Lead) {
					if l.CustomFields == nil {
						l.CustomFields = map[string]any{}
					}
					l.CustomFields["k"+want] = want
				}),
			)...))
			l, err := a.Lead(ctx, id)
			must(t, err)
			if l.Company != want || l.City != want || len(l.Tags) != 2*(i+1) || len(l.CustomFields) != i+1 || l.FirstName != "Old" {
				t.Fatalf("round %d: %s, %s, %d tags, %d fields", i, l.Company, l.City, len(l.Tags), len(l.CustomFields))
			}
		}
	})
}

// An update that fails changes nothing, keeps no lock, and its error is the caller's. The time of creation never changes.
func TestFaultAnUpdateThatIsRefused(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		id := storetest.Lead(t, s, nil)
		was, err := s.Lead(t.Context(), id)
		must(t, err)
		refused := errors.New("refused")
		if _, err := s.UpdateLead(t.Context(), id, func(l *message.Lead) error {
			l.FirstName = "New"
			return refused
		}); !errors.Is(err, refused) {
			t.Errorf("%v", err)
		}
		got, err := s.UpdateLead(t.Context(), id, func(l *message.Lead) error {
			l.ID, l.CreatedAt, l.LastName = newID(), time.Now(), "New"
			return nil
		})
		must(t, err)
		stored, err := s.Lead(t.Context(), id)
		must(t, err)
		for _, l := range []*message.Lead{got, stored} {
			if l.ID != id || !l.CreatedAt.Equal(was.CreatedAt) || l.FirstName != "Old" || l.LastName != "New" {
				t.Errorf("%+v", l)
			}
		}
		if _, err := s.UpdateLead(t.Context(), newID(), func(*message.Lead) error { return nil }); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("an unknown lead: %v", err)
		}
	})
}

// Only the columns that differ are written: what the store keeps for a column that was not changed stays as it is, also in a
// form that the update would write differently.
func TestFaultOnlyChangedColumnsAreWritten(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		id := storetest.Lead(t, s, func(l *message.Lead) { l.CustomFields = map[string]any{"n": 1} })
		_, err := db.ExecContext(t.Context(), `UPDATE leads SET custom_fields = '{"n": 9007199254740993}', city_fold = 'by hand' WHERE id = $1`, id.String())
		must(t, err)
		_, err = s.UpdateLead(t.Context(), id, func(l *message.Lead) error {
			l.Company = "New"
			return nil
		})
		must(t, err)
		var fields, fold, company string
		must(t, db.QueryRowContext(t.Context(), "SELECT custom_fields, city_fold, company FROM leads WHERE id = $1", id.String()).Scan(&fields, &fold, &company))
		if !strings.Contains(fields, "9007199254740993") || fold != "by hand" || company != "New" {
			t.Errorf("%s, %q, %q", fields, fold, company)
		}
	})
}

// A lead that is erased beside concurrent updates never exists again.
func TestFaultUpdatesBesideAnErasure(t *testing.T) {
	const rounds = 100
	each(t, func(t *testing.T, s *storetest.Store) {
		a, b := s, storetest.Another(t, s)
		ctx := t.Context()
		for range rounds {
			id := storetest.Lead(t, a, nil)
			update := func(s *storetest.Store) func() error {
				return func() error {
					_, err := s.UpdateLead(ctx, id, func(l *message.Lead) error {
						l.LastName = "New"
						return nil
					})
					if message.IsCode(err, message.CodeNotFound) {
						return nil
					}
					return err
				}
			}
			must(t, errors.Join(storetest.Together(update(a), func() error { return b.EraseLead(ctx, id) }, update(b), update(a))...))
			if l, err := a.Lead(ctx, id); !message.IsCode(err, message.CodeNotFound) {
				t.Fatalf("the erased lead is there: %+v, %v", l, err)
			}
		}
	})
}

// An update that waits for an erasure finds no lead.
func TestFaultAnUpdateThatWaitsForAnErasure(t *testing.T) {
	t.Parallel()
	s := storetest.New(t, testenv.Postgres)
	db := storetest.Raw(t, s.URL)
	id := storetest.Lead(t, s, nil)
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(t.Context(), "DELETE FROM leads WHERE id = $1", id.String())
	must(t, err)
	updated := make(chan error)
	go func() {
		_, err := s.UpdateLead(t.Context(), id, func(l *message.Lead) error {
			l.LastName = "New"
			return nil
		})
		updated <- err
	}()
	storetest.AwaitLock(t, db)
	must(t, tx.Commit())
	if err := <-updated; !message.IsCode(err, message.CodeNotFound) {
		t.Errorf("updated: %v", err)
	}
	if _, err := s.Lead(t.Context(), id); !message.IsCode(err, message.CodeNotFound) {
		t.Errorf("the erased lead is there: %v", err)
	}
}

// Of several that store one id, also in batches, one does, and the others are conflicts that write nothing.
func TestFaultOneIDIsStoredOnce(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		a, b := s, storetest.Another(t, s)
		ctx, now := t.Context(), time.Now()
		for i := range 60 {
			id := newID()
			batches := make([][]message.Lead, 4)
			inserts := make([]func() error, len(batches))
			for n := range batches {
				for range n / 2 * 2 { // one alone, or after others
					batches[n] = append(batches[n], message.Lead{ID: newID(), CreatedAt: now, UpdatedAt: now})
				}
				batches[n] = append(batches[n], message.Lead{ID: id, CreatedAt: now, UpdatedAt: now})
				inserts[n] = func() error { return []*storetest.Store{a, b}[n%2].InsertLeads(ctx, batches[n]) }
			}
			won := 0
			for n, err := range storetest.Together(inserts...) {
				switch {
				case err == nil:
					won++
				case !message.IsCode(err, message.CodeConflict):
					t.Fatal(err)
				case n > 1:
					if _, err := a.Lead(ctx, batches[n][0].ID); !message.IsCode(err, message.CodeNotFound) {
						t.Fatalf("round %d: a batch that was refused wrote some: %v", i, err)
					}
				}
			}
			if won != 1 {
				t.Fatalf("round %d: %d of %d were stored", i, won, len(batches))
			}
		}
	})
}

// A batch that the database ends because of a deadlock is merged again, with the leads as they are then.
func TestFaultADeadlockIsRepeated(t *testing.T) {
	t.Parallel()
	s := storetest.New(t, testenv.Postgres)
	db := storetest.Raw(t, s.URL)
	ctx := t.Context()
	first, second := storetest.Lead(t, s, nil), storetest.Lead(t, s, nil)
	tx, err := db.BeginTx(ctx, nil)
	must(t, err)
	defer tx.Rollback()
	for _, statement := range []string{
		"SET LOCAL deadlock_timeout = '1h'", // so it is the batch that the database ends
		"UPDATE leads SET company = 'Theirs' WHERE id = '" + second.String() + "'",
	} {
		_, err = tx.ExecContext(ctx, statement)
		must(t, err)
	}
	merged := make(chan error)
	go func() {
		merged <- s.MergeLeads(ctx, lead.Batch{Importer: newID(), IDs: []uuid.UUID{second, first}, Merge: func(stored []message.Lead) (created, updated []message.Lead) {
			for i := range stored {
				stored[i].City = "Ours"
			}
			return nil, stored
		}})
	}()
	storetest.AwaitLock(t, db) // the batch has the first, and waits for the second
	_, err = tx.ExecContext(ctx, "UPDATE leads SET company = 'Theirs' WHERE id = '"+first.String()+"'")
	must(t, err)
	must(t, tx.Commit())
	must(t, <-merged)
	for _, id := range []uuid.UUID{first, second} {
		if l, err := s.Lead(ctx, id); err != nil || l.Company != "Theirs" || l.City != "Ours" {
			t.Errorf("%+v, %v", l, err)
		}
	}
}

// A batch finds the stored leads by id, email and phone, each once. An empty email or phone finds none.
func TestAMergeFindsItsLeads(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		bare := storetest.Lead(t, s, func(l *message.Lead) { l.Email = "" })
		email := storetest.Lead(t, s, func(l *message.Lead) { l.Email, l.Phone = "Ann@example.com", "+4711111111" })
		phone := storetest.Lead(t, s, func(l *message.Lead) { l.Email, l.Phone = "", "+4722222222" })
		for name, c := range map[string]struct {
			batch lead.Batch
			want  []uuid.UUID
		}{
			"nothing":      {lead.Batch{}, nil},
			"empty values": {lead.Batch{Emails: []string{""}, Phones: []string{""}}, nil},
			"id":           {lead.Batch{IDs: []uuid.UUID{bare, newID()}}, []uuid.UUID{bare}},
			"email":        {lead.Batch{Emails: []string{"ann@example.com"}}, []uuid.UUID{email}},
			"phone":        {lead.Batch{Phones: []string{"+4722222222"}}, []uuid.UUID{phone}},
			"all three":    {lead.Batch{IDs: []uuid.UUID{email}, Emails: []string{"ann@example.com"}, Phones: []string{"+4711111111", "+4722222222"}}, []uuid.UUID{email, phone}},
		} {
			var got []uuid.UUID
			c.batch.Importer = newID()
			c.batch.Merge = func(stored []message.Lead) (created, updated []message.Lead) {
				got = nil
				for _, l := range stored {
					got = append(got, l.ID)
				}
				return nil, nil
			}
			must(t, s.MergeLeads(t.Context(), c.batch))
			slices.SortFunc(got, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: found %v, want %v", name, got, c.want)
			}
		}
	})
}

// Leads are listed in the order of their ids, in pages without repetition. The time of creation never changes.
func TestLeadsAreListedInPages(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		var want, got []uuid.UUID
		for range 3 {
			want = append(want, storetest.Lead(t, s, nil))
		}
		for after := uuid.Nil; ; after = got[len(got)-1] {
			page, err := s.Leads(t.Context(), nil, after, 2)
			must(t, err)
			if len(page) == 0 {
				break
			}
			for _, l := range page {
				got = append(got, l.ID)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}
