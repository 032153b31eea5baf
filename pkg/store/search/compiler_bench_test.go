package search

import (
	"testing"
	"time"

	"herald/pkg/audience"
	"herald/pkg/wire"
)

func BenchmarkCompile(b *testing.B) {
	v, err := wire.Decode([]byte(`{"search_keyword":"enterprise customers","assignees":["a","b"],"filters":{"logic":"OR","conditions":[
		{"field":"first_name","operator":"contains","value":"st"},{"field":"tags","operator":"contains","value":["a","b"]},
		{"conditions":[{"field":"created_at","operator":"within_last_days","value":7},{"field":"custom_fields.score","operator":"gt","value":3}]}]}}`))
	if err != nil {
		b.Fatal(err)
	}
	var errs wire.Errors
	c := audience.Parse(&errs, wire.NewObject(&errs, v, "body"), time.Now())
	if errs.Err() != nil {
		b.Fatal(errs.Err())
	}
	b.ReportAllocs()
	for b.Loop() {
		q := &compiler{postgres: true}
		q.criteria(&c, true)
	}
}
