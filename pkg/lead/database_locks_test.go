package lead_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"herald/pkg/lead"
	"herald/pkg/testenv"
)

// database is a connection of a test's own to PostgreSQL.
func database(t *testing.T, databaseURL string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, db *pgx.Conn, statement string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// awaitLock waits until a statement waits for a lock, which the connection must hold.
func awaitLock(t *testing.T, db *pgx.Conn) {
	t.Helper()
	testenv.Eventually(t, 20*time.Second, "a statement waits for a lock", func() bool {
		var n int
		if err := db.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n > 0
	})
}

// An import that found people and waits for the erasure of one, or for another write, merges with what is there after it.
func TestFaultAnImportThatWaits(t *testing.T) {
	databaseURL := testenv.Database(t, testenv.Postgres)
	p := processOn(t, databaseURL)
	importCSV(t, p, "email,last_name,company\nann@example.com,Old,Old\nbob@example.com,Old,Old\ncat@example.com,Old,Old\n")
	ids := map[string]uuid.UUID{}
	for _, l := range everyLead(t, p.store) {
		ids[l.Email] = l.ID
	}
	db := database(t, databaseURL)
	exec(t, db, "BEGIN")
	exec(t, db, "DELETE FROM leads WHERE email = 'ann@example.com'")
	exec(t, db, "UPDATE leads SET company = 'Theirs', tags = '[\"theirs\"]' WHERE email = 'bob@example.com'")
	exec(t, db, "UPDATE leads SET email = 'dan@example.com', email_fold = 'dan@example.com' WHERE email = 'cat@example.com'")
	done := make(chan lead.Report)
	go func() {
		done <- importCSV(t, p, "email,first_name,tags\nann@example.com,New,ours\nbob@example.com,New,ours\ncat@example.com,New,ours\n")
	}()
	awaitLock(t, db)
	exec(t, db, "COMMIT")
	if rep := <-done; rep.Imported != 2 || rep.Updated != 1 {
		t.Errorf("%+v", rep)
	}
	for _, l := range everyLead(t, p.store) {
		known := ids[l.Email] == l.ID
		switch l.Email {
		case "ann@example.com", "cat@example.com": // cat's lead is dan's by now
			if known || l.LastName != "" || l.Company != "" || l.FirstName != "New" {
				t.Errorf("%+v", l)
			}
		case "bob@example.com":
			if !known || l.Company != "Theirs" || l.FirstName != "New" || len(l.Tags) != 2 {
				t.Errorf("%+v", l)
			}
		case "dan@example.com":
			if l.ID != ids["cat@example.com"] || l.FirstName != "" || l.LastName != "Old" {
				t.Errorf("%+v", l)
			}
		}
	}
}

// An id that is taken while an import waits to insert it is that lead's: the row updates it, and all others are stored.
func TestFaultAnImportWhoseIDIsTaken(t *testing.T) {
	databaseURL := testenv.Database(t, testenv.Postgres)
	p := processOn(t, databaseURL)
	id := uuid.New()
	db := database(t, databaseURL)
	exec(t, db, "BEGIN")
	exec(t, db, "INSERT INTO leads (id, company, created_at, updated_at) VALUES ($1, 'Theirs', now(), now())", id)
	done := make(chan lead.Report)
	go func() {
		done <- importCSV(t, p, "id,email,first_name\n,a@example.com,A\n"+id.String()+",b@example.com,B\n")
	}()
	awaitLock(t, db)
	exec(t, db, "COMMIT")
	if rep := <-done; rep.Imported != 1 || rep.Updated != 1 {
		t.Errorf("%+v", rep)
	}
	if l, err := p.Get(t.Context(), id); err != nil || l.Company != "Theirs" || l.FirstName != "B" || len(everyLead(t, p.store)) != 2 {
		t.Errorf("%+v, %v", l, err)
	}
}

// The process whose lease another takes waits its turn and goes on; rows that it writes meanwhile are not written beside the
// other's.
func TestFaultAProcessThatLosesTheLease(t *testing.T) {
	databaseURL := testenv.Database(t, testenv.Postgres)
	a, b := twoOn(t, databaseURL)
	importCSV(t, a, "email\na@example.com\n")
	db := database(t, databaseURL)
	exec(t, db, "BEGIN")
	exec(t, db, "LOCK TABLE import_lease IN ROW SHARE MODE") // a batch of a's is under way
	importCSV(t, a, "email\nbeside@example.com\n")           // its other batches run beside it
	done := make(chan lead.Report, 2)
	go func() { done <- importCSV(t, b, "email\nx@example.com\n") }()
	awaitLock(t, db) // b waits for it
	go func() { done <- importCSV(t, a, "email\nx@example.com\n") }()
	testenv.Eventually(t, 20*time.Second, "a waits behind b", func() bool {
		var n int
		err := db.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE relation = 'import_lease'::regclass AND NOT granted").Scan(&n)
		return err == nil && n == 2
	})
	exec(t, db, "COMMIT")
	first, second := <-done, <-done
	if first.Imported+second.Imported != 1 || first.Unchanged+second.Unchanged != 1 || len(everyLead(t, a.store)) != 3 {
		t.Errorf("%+v, %+v, %d leads", first, second, len(everyLead(t, a.store)))
	}
}

// An import whose commit's answer is lost writes its rows once, also those that nothing would recognise again.
func TestFaultAnImportWhoseAnswerIsLost(t *testing.T) {
	databaseURL := testenv.Database(t, testenv.Postgres)
	seen := processOn(t, databaseURL)
	proxy, through := testenv.ProxyDatabase(t, databaseURL)
	p := processOn(t, through)
	db := database(t, databaseURL)
	// A commit that writes leads waits for a lock of the test.
	exec(t, db, "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END'")
	exec(t, db, "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON leads DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()")
	people := 0
	for name, file := range map[string]string{
		"nothing to recognise": "email,first_name,company\n,Ann,Acme\n,Ann,Acme\n,Ann,Acme\n",
		"an email":             "email\na@example.com\nb@example.com\nb@example.com\n",
		"an id of the file":    "id,first_name\n" + uuid.NewString() + ",Ann\n,Bob\n,Bob\n",
	} {
		exec(t, db, "SELECT pg_advisory_lock(1)")
		done := make(chan lead.Report)
		go func() { done <- importCSV(t, p, file) }()
		awaitLock(t, db)
		before := proxy.Lost()
		proxy.LoseAnswers(1)
		exec(t, db, "SELECT pg_advisory_unlock(1)")
		rep := <-done
		if proxy.Lost() != before+1 {
			t.Fatalf("%s: no answer was lost", name)
		}
		people += rep.Imported
		if n := len(everyLead(t, seen.store)); rep.Imported+rep.Updated+rep.Unchanged != 3 || rep.Imported < 2 || n != people {
			t.Errorf("%s: %+v, %d leads, want %d", name, rep, n, people)
		}
	}
}
