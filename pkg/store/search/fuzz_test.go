package search_test

import (
	"encoding/json"
	"testing"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/wire"
)

// Any bulk_settings are refused with their mistakes, or become SQL that the database accepts.
func FuzzAudience(f *testing.F) {
	for _, s := range []string{
		`{"all_leads":true,"exclude_tags":["x","%"]}`,
		`{"search_keyword":"O'Hara % _ \\"}`,
		`{"lead_ids":["11111111-0001-0001-0001-000000000001"],"match":"any","assignees":["user-uuid-1"]}`,
		`{"filters":{"logic":"AND","conditions":[{"id":"1","field":"first_name","operator":"contains","value":"st"},{"id":"2","field":"tags","operator":"contains","value":["Import 10/05/25"]}]}}`,
		`{"filters":{"conditions":[{"field":"custom_fields.we\"ird 'key` + "`" + `","operator":"between","value":[1,2e300]},{"logic":"OR","conditions":[{"field":"created_at","operator":"within_last_days","value":7}]}]}}`,
		`{"filters":{"conditions":[{"field":"email","operator":"in","value":["a","ß","\u0130"]},{"field":"company","operator":"is_empty"}]}}`,
		`{"filters":{"conditions":[{"field":"updated_at","operator":"between","value":["2025-01-01","9999-12-31T23:59:59Z"]}]}}`,
		`{"timezone":"Asia/Amman","filters":{"conditions":[{"field":"custom_fields.a","operator":"between","value":["2021-10-29","9999-12-31 23:59"]},{"field":"custom_fields.b","operator":"within_next_days","value":0}]}}`,
		`{"filters":{"conditions":[{"field":"1; DROP TABLE leads","operator":"=","value":null}]}}`,
	} {
		f.Add([]byte(s))
	}
	s := storetest.SQLite(f)
	lead := &message.Lead{FirstName: "Ann", Email: "ann@example.com", Tags: []string{"x"}, CustomFields: map[string]any{"plan": "gold", "a": "31.01.2025", "b": "2025-01-31T10:00:00Z"}, CreatedAt: moment}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := wire.Decode(b)
		if err != nil {
			return
		}
		var errs wire.Errors
		o := wire.NewObject(&errs, v, "body", "bulk_settings")
		if o == nil {
			return
		}
		c := audience.Parse(&errs, o, moment)
		if errs.Err() != nil {
			if _, err := json.Marshal(errs.List()); err != nil {
				t.Errorf("mistakes that cannot be said: %v", err)
			}
			return
		}
		if _, err := s.Resolve(t.Context(), &c, message.Email, "", 10); err != nil {
			t.Errorf("%s: %v", b, err)
		}
		c.Match(audience.NewPerson(lead))
	})
}
