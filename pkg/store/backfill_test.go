package store_test

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/delivery"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

// counting is a backfill over the numbers below end: it notes each number once, in steps of one batch.
func counting(end int, each func(n int) error) store.Backfill {
	return store.Backfill{Name: "counting", Batch: func(tx *gorm.DB, cursor string) (store.BatchResult, error) {
		n, _ := strconv.Atoi(cursor)
		if err := tx.Exec("INSERT INTO outbox (type, subject_id, data, created_at) VALUES (?, ?, '{}', ?)", "step "+strconv.Itoa(n), uuid.New(), time.Now()).Error; err != nil {
			return store.BatchResult{}, err
		}
		return store.BatchResult{Cursor: strconv.Itoa(n + 1), Rows: 3, Done: n+1 == end}, each(n)
	}}
}

func steps(t *testing.T, db *sql.DB) (all, different int) {
	t.Helper()
	must(t, db.QueryRowContext(t.Context(), "SELECT count(*), count(DISTINCT type) FROM outbox WHERE type LIKE 'step %'").Scan(&all, &different))
	return all, different
}

// A backfill that is interrupted in the middle of a batch continues after the last whole batch, and runs once in all.
func TestABackfillIsResumed(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		db := storetest.Raw(t, s.URL)
		broken := errors.New("the process dies")
		dying := counting(4, func(n int) error {
			if n == 2 {
				return broken
			}
			return nil
		})
		if err := s.RunBackfills(t.Context(), []store.Backfill{dying}); !errors.Is(err, broken) {
			t.Fatalf("%v", err)
		}
		if all, different := steps(t, db); all != 2 || different != 2 {
			t.Fatalf("%d steps, %d different, before the interruption", all, different)
		}
		whole := []store.Backfill{counting(4, func(int) error { return nil })}
		other := store.Backfill{Name: "other"}
		expect := func(state string, rows int64) {
			t.Helper()
			got, err := s.BackfillStatus(t.Context(), append([]store.Backfill{other}, whole...))
			must(t, err)
			if d := cmp.Diff([]store.BackfillStatus{{Name: "other", State: store.BackfillPending}, {Name: "counting", State: state, RowsDone: rows}}, got); d != "" {
				t.Error(d)
			}
		}
		expect(store.BackfillRunning, 6) // 2 of 4 batches of 3 rows
		if pending, err := s.PendingBackfills(t.Context(), whole); err != nil || len(pending) != 1 {
			t.Errorf("pending %v, %v", pending, err)
		}
		for range 2 { // done stays done
			must(t, storetest.Another(t, s).RunBackfills(t.Context(), whole))
			if all, different := steps(t, db); all != 4 || different != 4 {
				t.Errorf("%d steps, %d different, of 4", all, different)
			}
		}
		expect(store.BackfillDone, 12)
		if pending, err := s.PendingBackfills(t.Context(), whole); err != nil || len(pending) != 0 {
			t.Errorf("pending %v, %v", pending, err)
		}
	})
}

// Processes that run a backfill at the same time share its batches: each batch is executed once.
func TestABackfillRunsOnceForAllProcesses(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		first, second := s, storetest.Another(t, s)
		b := []store.Backfill{counting(6, func(int) error { return nil })}
		for _, err := range storetest.Together(
			func() error { return first.RunBackfills(t.Context(), b) },
			func() error { return second.RunBackfills(t.Context(), b) },
		) {
			must(t, err)
		}
		if all, different := steps(t, storetest.Raw(t, s.URL)); all != 6 || different != 6 {
			t.Errorf("%d steps, %d different, of 6", all, different)
		}
	})
}

// A process that stops ends its backfill between two batches.
func TestABackfillStopsWithItsProcess(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		err := s.RunBackfills(ctx, []store.Backfill{counting(1_000_000, func(int) error {
			if n++; n == 2 {
				cancel()
			}
			return nil
		})})
		if !errors.Is(err, context.Canceled) || n != 2 {
			t.Errorf("%d batches, %v", n, err)
		}
	})
}

// Messages are inserted, claimed and settled while a backfill runs.
func TestServersWorkWhileABackfillRuns(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		done, served := make(chan error, 1), 0
		go func() {
			done <- s.RunBackfills(t.Context(), []store.Backfill{counting(5, func(int) error { return nil })})
		}()
		for running := true; running; {
			m := storetest.InsertSingle(t, s, nil)
			token, ok := storetest.Claim(t, s, m.ID, time.Minute)
			if !ok || !storetest.Settle(t, s, delivery.Row{ID: m.ID, Token: token}.Sent(0)) {
				t.Error("a message was not sent")
			}
			select {
			case err := <-done:
				must(t, err)
				running = false
			default:
				served++
			}
		}
		if served == 0 {
			t.Error("no message was sent before the backfill ended")
		}
	})
}
