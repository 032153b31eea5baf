package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/records"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// counting is a backfill over the numbers below end: it notes each number once, in steps of one batch.
func counting(end int, each func(n int) error) store.Backfill {
	return store.Backfill{Name: "counting", Batch: func(tx *gorm.DB, cursor string) (string, bool, error) {
		n, _ := strconv.Atoi(cursor)
		if err := tx.Exec("INSERT INTO outbox (type, subject_id, data, created_at) VALUES (?, ?, '{}', ?)", "step "+strconv.Itoa(n), uuid.New(), time.Now()).Error; err != nil {
			return "", false, err
		}
		return strconv.Itoa(n + 1), n+1 == end, each(n)
	}}
}

func steps(t *testing.T, db *sql.DB) (all, different int) {
	t.Helper()
	must(t, db.QueryRowContext(t.Context(), "SELECT count(*), count(DISTINCT type) FROM outbox WHERE type LIKE 'step %'").Scan(&all, &different))
	return all, different
}

// A backfill that is interrupted in the middle of a batch continues after the last whole batch, and runs once in all.
func TestABackfillIsResumed(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s, db := open(t, url), raw(t, url)
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
		if pending, err := s.PendingBackfills(t.Context(), whole); err != nil || len(pending) != 1 {
			t.Errorf("pending %v, %v", pending, err)
		}
		for range 2 { // done stays done
			must(t, storetest.Open(t, url, storetest.Options{}).RunBackfills(t.Context(), whole))
			if all, different := steps(t, db); all != 4 || different != 4 {
				t.Errorf("%d steps, %d different, of 4", all, different)
			}
		}
		if pending, err := s.PendingBackfills(t.Context(), whole); err != nil || len(pending) != 0 {
			t.Errorf("pending %v, %v", pending, err)
		}
	})
}

// Processes that run a backfill at the same time share its batches: each batch is executed once.
func TestABackfillRunsOnceForAllProcesses(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		first, second := twice(t, url)
		b := []store.Backfill{counting(6, func(int) error { return nil })}
		for _, err := range together(
			func() error { return first.RunBackfills(t.Context(), b) },
			func() error { return second.RunBackfills(t.Context(), b) },
		) {
			must(t, err)
		}
		if all, different := steps(t, raw(t, url)); all != 6 || different != 6 {
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

// Numbers of an earlier version become sort keys, however many leads have them, and filters find the same leads before, while
// and after that.
func TestNumbersBecomeSortKeys(t *testing.T) {
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		s, db := open(t, url), raw(t, url)
		const n = store.BackfillRows + 3
		leads := make([]message.Lead, n)
		for i := range leads {
			leads[i] = message.Lead{ID: newID(), Email: fmt.Sprintf("n%d@example.com", i), CustomFields: map[string]any{"score": i}, CreatedAt: time.Now(), UpdatedAt: time.Now()}
		}
		must(t, s.InsertLeads(t.Context(), leads))
		for i, l := range leads {
			if i%2 == 0 {
				_, err := db.ExecContext(t.Context(), "UPDATE leads SET custom_number = $1 WHERE id = $2", fmt.Sprintf(`{%q: %d}`, store.CustomKey("score"), i), l.ID.String())
				must(t, err)
			}
		}
		above := func() int {
			t.Helper()
			c := parseSettings(t, map[string]any{"filters": map[string]any{"conditions": []any{map[string]any{"field": "custom_fields.score", "operator": "gte", "value": json.Number("100")}}}})
			return len(resolveAll(t, s, c, 1_000))
		}
		if got := above(); got != n-100 {
			t.Errorf("before: %d leads", got)
		}
		must(t, s.RunBackfills(t.Context(), records.Backfills()))
		if got := above(); got != n-100 {
			t.Errorf("after: %d leads", got)
		}
		for i, l := range leads {
			d, _ := message.ParseDecimal(strconv.Itoa(i))
			var stored string
			must(t, db.QueryRowContext(t.Context(), "SELECT custom_number ->> $1 FROM leads WHERE id = $2", store.CustomKey("score"), l.ID.String()).Scan(&stored))
			if stored != d.SortKey() {
				t.Fatalf("%d is stored as %q", i, stored)
			}
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
			m := insertSingle(t, s, nil)
			token, ok := claim(t, s, m.ID, time.Minute)
			if !ok || !settle(t, s, delivery.Row{ID: m.ID, Token: token}.Sent(0)) {
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
