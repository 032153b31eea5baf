package search_test

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

var benchLeads = flag.Int("leads", 100_000, "leads in the table that the audience benchmarks work on")

// benchLead is the i-th of a table of leads: every other one has the tag "half 1", every hundredth "percent 7".
func benchLead(i int, now time.Time) message.Lead {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], 0x0190<<48|7<<12)
	binary.BigEndian.PutUint64(id[8:], 8<<60|uint64(i))
	h := uint32(i) * 2654435761
	return message.Lead{
		ID: id, FirstName: fmt.Sprintf("First%d", h%9973), LastName: fmt.Sprintf("Last%d", h%7919), Email: fmt.Sprintf("lead%d@example%d.com", i, i%50),
		Phone: fmt.Sprintf("+1415%07d", i%10_000_000), Company: fmt.Sprintf("Company %d", i%2000), City: fmt.Sprintf("Oslo %d", i%300), Country: "NO",
		AssigneeID: fmt.Sprintf("user-%d", i%100), Tags: []string{fmt.Sprintf("half %d", i%2), fmt.Sprintf("percent %d", i%100)},
		CustomFields: map[string]any{"score": i % 1000}, CreatedAt: now, UpdatedAt: now,
	}
}

func benchStore(b *testing.B) *storetest.Store {
	b.Helper()
	s := storetest.Open(b, testenv.Database(b, testenv.Postgres), storetest.Options{})
	now := time.Now()
	const batch = 5_000
	for from := 0; from < *benchLeads; from += batch {
		leads := make([]message.Lead, 0, batch)
		for i := from; i < min(from+batch, *benchLeads); i++ {
			leads = append(leads, benchLead(i, now))
		}
		if err := s.InsertLeads(context.Background(), leads); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func tagged(tag string) map[string]any {
	return map[string]any{"filters": map[string]any{"conditions": []any{map[string]any{"field": "tags", "operator": "contains", "value": tag}}}}
}

// What a page of a plan costs to resolve, at the audience's beginning, middle and end: it must not depend on where, nor
// on how many match in all.
func BenchmarkResolve(b *testing.B) {
	s := benchStore(b)
	for _, c := range []struct {
		name     string
		settings map[string]any
	}{{"all", map[string]any{"all_leads": true}}, {"half", tagged("half 1")}, {"percent", tagged("percent 7")}} {
		criteria := storetest.ParseSettings(b, c.settings, moment)
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				var pages []time.Duration
				found := 0
				began := time.Now()
				for cursor, done := "", false; !done; {
					at := time.Now()
					page, err := s.Resolve(context.Background(), criteria, message.Email, cursor, 4_000)
					if err != nil {
						b.Fatal(err)
					}
					pages = append(pages, time.Since(at))
					found += len(page.Candidates)
					cursor, done = page.Next, page.Done
				}
				b.ReportMetric(float64(found)/time.Since(began).Seconds(), "leads/s")
				b.ReportMetric(float64(len(pages)), "pages")
				for name, i := range map[string]int{"first-ms": 0, "middle-ms": len(pages) / 2, "last-ms": len(pages) - 1} {
					b.ReportMetric(float64(pages[i].Microseconds())/1000, name)
				}
			}
		})
	}
}

// BenchmarkParse reads a filter of five hundred conditions, from the request's tree to the criteria.
func BenchmarkParse(b *testing.B) {
	var conditions []any
	for i := range 500 {
		conditions = append(conditions, map[string]any{"field": "first_name", "operator": "contains", "value": fmt.Sprintf("Value %d", i)})
	}
	settings := map[string]any{"filters": map[string]any{"conditions": conditions}}
	var c *audience.Criteria
	b.ReportAllocs()
	for b.Loop() {
		c = storetest.ParseSettings(b, settings, moment)
	}
	if len(c.Filter.Children) != 500 {
		b.Fatal("lost conditions")
	}
}
