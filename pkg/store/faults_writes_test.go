package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// twice opens a database twice, as two processes do.
func twice(t *testing.T, url string) (*storetest.Store, *storetest.Store) {
	t.Helper()
	o := storetest.Options{Sealer: storetest.Sealer(t)}
	return storetest.Open(t, url, o), storetest.Open(t, url, o)
}

// together runs functions at the same time and returns their errors.
func together(all ...func() error) []error {
	errs := make([]error, len(all))
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i, do := range all {
		wg.Go(func() {
			<-begin
			errs[i] = do()
		})
	}
	close(begin)
	wg.Wait()
	return errs
}

// raw opens a test's database without a Store.
func raw(t *testing.T, url string) *sql.DB {
	t.Helper()
	driver, name := "pgx", url
	if path, ok := strings.CutPrefix(url, "sqlite://"); ok {
		driver, name = "sqlite", "file:"+path+"?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, name)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// awaitLock waits until a statement on a PostgreSQL database waits for a lock.
func awaitLock(t *testing.T, db *sql.DB) {
	t.Helper()
	testenv.Eventually(t, 20*time.Second, "a statement waits for a lock", func() bool {
		var n int
		must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n))
		return n > 0
	})
}

func newLead(t *testing.T, s *storetest.Store, change func(*message.Lead)) uuid.UUID {
	t.Helper()
	now := micro(time.Now().Add(-time.Hour))
	l := message.Lead{ID: newID(), FirstName: "Old", Email: newID().String() + "@example.com", CreatedAt: now, UpdatedAt: now}
	if change != nil {
		change(&l)
	}
	must(t, s.InsertLeads(t.Context(), []message.Lead{l}))
	return l.ID
}

// Updates of one lead at the same time, from two processes, are all kept, whichever fields they change.
func TestFaultUpdatesOfOneLead(t *testing.T) {
	const rounds = 100
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		a, b := twice(t, url)
		ctx := t.Context()
		id := newLead(t, a, nil)
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
			must(t, errors.Join(together(
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
		id := newLead(t, s, nil)
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
			t.Errorf("a lead that is not there: %v", err)
		}
	})
}

// Only the columns that differ are written: what the store keeps for a column that was not changed stays as it is, also in a
// form that the update would write differently.
func TestFaultOnlyChangedColumnsAreWritten(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s, db := open(t, url), raw(t, url)
		id := newLead(t, s, func(l *message.Lead) { l.CustomFields = map[string]any{"n": 1} })
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

// A lead that is erased beside its updates never exists again, in whichever order they come.
func TestFaultUpdatesBesideAnErasure(t *testing.T) {
	const rounds = 100
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		a, b := twice(t, url)
		ctx := t.Context()
		for range rounds {
			id := newLead(t, a, nil)
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
			must(t, errors.Join(together(update(a), func() error { return b.EraseLead(ctx, id) }, update(b), update(a))...))
			if l, err := a.Lead(ctx, id); !message.IsCode(err, message.CodeNotFound) {
				t.Fatalf("the erased lead is there: %+v, %v", l, err)
			}
		}
	})
}

// An update that waits for an erasure finds no lead.
func TestFaultAnUpdateThatWaitsForAnErasure(t *testing.T) {
	url := testenv.Database(t, testenv.Postgres)
	s, db := open(t, url), raw(t, url)
	id := newLead(t, s, nil)
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
	awaitLock(t, db)
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
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		a, b := twice(t, url)
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
			for n, err := range together(inserts...) {
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
	url := testenv.Database(t, testenv.Postgres)
	s, db := open(t, url), raw(t, url)
	ctx := t.Context()
	first, second := newLead(t, s, nil), newLead(t, s, nil)
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
	awaitLock(t, db) // the batch has the first, and waits for the second
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

// A key that is taken again while it is deleted for its age stays.
func TestFaultAKeyTakenAgainIsNotForgotten(t *testing.T) {
	url := testenv.Database(t, testenv.Postgres)
	s, db := open(t, url), raw(t, url)
	ctx := t.Context()
	for _, asBulk := range []bool{false, true} {
		name := fmt.Sprint("taken ", asBulk)
		old, err := insertUnder(t, s, keyed("", name, "first"), asBulk)
		must(t, err)
		other, err := insertUnder(t, s, keyed("", name+" other", ""), asBulk)
		must(t, err)
		age := micro(time.Now().Add(-access.KeepEffects - time.Minute))
		_, err = db.ExecContext(ctx, "UPDATE idempotency_keys SET created_at = $1 WHERE effect_id IN ($2, $3)", age, old.String(), other.String())
		must(t, err)
		tx, err := db.BeginTx(ctx, nil)
		must(t, err)
		defer tx.Rollback()
		again := newID()
		_, err = tx.ExecContext(ctx, "UPDATE idempotency_keys SET effect_id = $1, created_at = now() WHERE effect_id = $2", again.String(), old.String())
		must(t, err)
		forgotten := make(chan error)
		go func() { forgotten <- s.ForgetEffects(ctx) }()
		awaitLock(t, db)
		must(t, tx.Commit())
		must(t, <-forgotten)
		if e, err := s.Effect(ctx, keyed("", name, "first")); err != nil || e.ID != again {
			t.Errorf("the key that was taken again: %+v, %v", e, err)
		}
		if _, err := s.Effect(ctx, keyed("", name+" other", "")); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("the old key beside it: %v", err)
		}
		if _, err := insertUnder(t, s, keyed("", name, "first"), asBulk); !errors.Is(err, access.ErrKeyTaken) {
			t.Errorf("the same request is done again: %v", err)
		}
	}
}

// A key stands for seven days: one of 6 days and 23 hours refuses another effect and is not forgotten, one of 7 days and an
// hour is free, for singles and bulks and for whichever of them had it before.
func TestFaultAKeyStandsForSevenDays(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s, db := open(t, url), raw(t, url)
		for _, before := range []bool{false, true} {
			for _, after := range []bool{false, true} {
				for _, c := range []struct {
					age   time.Duration
					taken bool
				}{{6*24*time.Hour + 23*time.Hour, true}, {7*24*time.Hour + time.Hour, false}, {10 * time.Minute, true}, {11 * time.Minute, true}} {
					name := fmt.Sprint(before, after, c.age)
					first, err := insertUnder(t, s, keyed("", name, ""), before)
					must(t, err)
					_, err = db.ExecContext(t.Context(), "UPDATE idempotency_keys SET created_at = $1 WHERE effect_id = $2", micro(time.Now().Add(-c.age)), first.String())
					must(t, err)
					if c.taken {
						must(t, s.ForgetEffects(t.Context()))
					}
					second, err := insertUnder(t, s, keyed("", name, ""), after)
					if errors.Is(err, access.ErrKeyTaken) != c.taken || (err == nil) == c.taken {
						t.Errorf("%s: %v", name, err)
					}
					want := first
					if !c.taken {
						want = second
					}
					if e, err := s.Effect(t.Context(), keyed("", name, "")); err != nil || e.ID != want || e.Bulk != (want == first && before || want == second && after) {
						t.Errorf("%s: effect %+v, %v", name, e, err)
					}
				}
			}
		}
	})
}
