package store_test

import (
	"strings"
	"testing"

	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// A binary does not run on a schema that a newer version has migrated, applies nothing to it, and names what it does not know.
func TestIntegrationASchemaThatIsAhead(t *testing.T) {
	t.Parallel()
	testenv.EachDatabase(t, func(t *testing.T, url string) {
		db := storetest.Raw(t, url)
		s := storetest.Connect(t, url, storetest.Options{})
		known, err := s.Migrate(t.Context())
		must(t, err)
		for _, version := range []string{"90001", "90002"} {
			_, err := db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied, tstamp) VALUES ("+version+", true, '2026-01-02 03:04:05')")
			must(t, err)
		}
		for what, check := range map[string]func() error{
			"check": func() error { return s.CheckSchema(t.Context()) }, "migrate": func() error { _, err := s.Migrate(t.Context()); return err },
		} {
			if err := check(); err == nil || !strings.Contains(err.Error(), "ahead of this version") || !strings.Contains(err.Error(), "90001, 90002") {
				t.Errorf("%s: %v", what, err)
			}
		}
		status, err := s.MigrationStatus(t.Context())
		must(t, err)
		if len(status) != len(known)+2 || status[len(known)-1].Unknown {
			t.Fatalf("%d migrations, %d are known: %+v", len(status), len(known), status)
		}
		for i, name := range []string{"90001", "90002"} {
			if m := status[len(known)+i]; m.Name != name || !m.Unknown || m.AppliedAt == nil || m.AppliedAt.Year() != 2026 {
				t.Errorf("%+v", m)
			}
		}
		_, err = db.ExecContext(t.Context(), "DELETE FROM goose_db_version WHERE version_id > 90000")
		must(t, err)
		must(t, s.CheckSchema(t.Context()))
	})
}
