package search_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
	"herald/pkg/testenv"
)

// The words that leads and filters are made of: case pairs that only full folding knows, combining marks, what LIKE and
// SQL would trip over, numbers in several spellings.
var words = []string{
	"ann", "Ann", "ANN", "STRASSE", "straße", "Straße", "İstanbul", "istanbul", "I", "ı", "é", "e\u0301", "É", "ﬁne", "fine", "Σίσυφος", "σίσυφοσ",
	"100%", "a_b", "a\\b", "%", "_", "\\", "O'Hara", `"quoted"`, "'; DROP TABLE leads; --", "x\ny", "tab\there", "日本語", "😀", "ß", "ss", "Import 10/05/25",
	"import 10/05/25", "st", "2", "2.0", "10", "-3.5", "1e3", "true", "null", "(a|b)*", "$1", "?1", "{{x}}", " ", "a  b", "\u00a0",
	"+1 (415) 555-0101", "+14155550101", "4155550101", "555-0101", "415", "Ann <ann@x.test>", "ann@x.test", "ann@münchen.test", "ann@xn--mnchen-3ya.test",
	"O’Neil", "o'neil", "Łódź", "lodz", " vip ", "vip", "™",
}

var (
	keys      = []string{"plan", "Plan", "score", `we"ird 'key\`, "7", "ключ", "a.b"}
	moment    = time.Date(2025, 10, 5, 12, 0, 0, 0, time.UTC)
	assignees = []string{"user-uuid-1", "user-uuid-2", "USER-UUID-1", "ß"}
	textNames = []string{"first_name", "last_name", "full_name", "email", "phone", "company", "title", "status", "source", "city", "state", "country", "timezone", "language", "instagram_id", "assignee_id"}
)

func word(t *rapid.T) string {
	n := rapid.IntRange(1, 3).Draw(t, "words")
	s := ""
	for range n {
		s += rapid.SampledFrom(words).Draw(t, "word")
	}
	return s
}

func maybe(t *rapid.T, s func(*rapid.T) string) string {
	if rapid.IntRange(0, 2).Draw(t, "missing") == 0 {
		return ""
	}
	return s(t)
}

func instant(t *rapid.T) time.Time {
	return moment.Add(time.Duration(rapid.IntRange(-5, 5).Draw(t, "days")) * 24 * time.Hour).Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "µs")) * time.Microsecond)
}

func customValue(t *rapid.T) any {
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0:
		return float64(rapid.IntRange(-40, 40).Draw(t, "n")) / 4
	case 6:
		return json.Number(rapid.SampledFrom(numbers).Draw(t, "number"))
	case 7:
		return rapid.SampledFrom(numbers).Draw(t, "number in text")
	case 1:
		return rapid.Bool().Draw(t, "b")
	case 2:
		return nil
	case 3:
		return []any{word(t), 1.0}
	default:
		return word(t)
	}
}

var genLead = rapid.Custom(func(t *rapid.T) message.Lead {
	l := message.Lead{CreatedAt: instant(t), UpdatedAt: instant(t)}
	id := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")
	l.ID = uuid.UUID(id)
	for _, f := range l.TextFields() {
		*f.Value = maybe(t, word)
	}
	l.AssigneeID = maybe(t, func(t *rapid.T) string { return rapid.SampledFrom(assignees).Draw(t, "assignee") })
	l.Tags = rapid.SliceOfN(rapid.SampledFrom(words), 0, 3).Draw(t, "tags")
	l.CustomFields = map[string]any{}
	for _, k := range keys {
		if rapid.Bool().Draw(t, "has") {
			l.CustomFields[k] = customValue(t)
		}
	}
	if rapid.Bool().Draw(t, "contacted") {
		at := instant(t)
		l.LastContactedAt = &at
	}
	return l
})

func genTime(t *rapid.T) any {
	at := instant(t)
	if rapid.Bool().Draw(t, "date") {
		return at.Format(time.DateOnly)
	}
	return at.In(time.FixedZone("x", 7200)).Format(time.RFC3339)
}

func genValues(t *rapid.T) []any {
	var list []any
	for range rapid.IntRange(1, 3).Draw(t, "values") {
		list = append(list, word(t))
	}
	return list
}

// numbers are those that a float64 does not tell apart, and the same ones in other spellings.
var numbers = []string{
	"9007199254740992", "9007199254740993", "-9007199254740992", "-9007199254740993", "17841400000000123", "17841400000000124", "999999999999999999",
	"0.1", "0.10", "0.10000000000000000001", "-0.10000000000000000001", "0", "-0", "0.0", "1e3", "1E+3", "1000", "1000.0", "1e-40", "-1e-40", "2.50",
	"1234567890123456789012345678901234567890", "1234567890123456789012345678901234567891.5", "9e39", "-9e39", "9.99e39",
}

func number(t *rapid.T) any {
	if rapid.Bool().Draw(t, "exact") {
		return json.Number(rapid.SampledFrom(numbers).Draw(t, "number"))
	}
	return json.Number(strconv.FormatFloat(float64(rapid.IntRange(-40, 40).Draw(t, "n"))/4, 'f', -1, 64))
}

// genCondition draws a condition as a UI would send it.
func genCondition(t *rapid.T) map[string]any {
	kind := rapid.SampledFrom([]string{"text", "text", "text", "tags", "time", "custom", "number"}).Draw(t, "kind")
	var field, op string
	var value any
	switch kind {
	case "time":
		field = rapid.SampledFrom([]string{"created_at", "updated_at", "last_contacted_at"}).Draw(t, "field")
		op = rapid.SampledFrom([]string{"before", "after", "between", "within_last_days", "is_empty", "is_not_empty"}).Draw(t, "op")
		switch op {
		case "between":
			value = []any{genTime(t), genTime(t)}
		case "within_last_days":
			value = json.Number(strconv.Itoa(rapid.IntRange(1, 6).Draw(t, "days")))
		default:
			value = genTime(t)
		}
	case "tags":
		field, op = "tags", rapid.SampledFrom([]string{"contains", "contains_all", "not_contains", "is_empty", "is_not_empty"}).Draw(t, "op")
		value = genValues(t)
	case "number":
		field = "custom_fields." + rapid.SampledFrom(keys).Draw(t, "key")
		op = rapid.SampledFrom([]string{"gt", "gte", "lt", "lte", "between"}).Draw(t, "op")
		if value = number(t); op == "between" {
			value = []any{value, number(t)}
		}
	default:
		if field = rapid.SampledFrom(textNames).Draw(t, "field"); kind == "custom" {
			field = "custom_fields." + rapid.SampledFrom(keys).Draw(t, "key")
		}
		op = rapid.SampledFrom([]string{"equals", "not_equals", "contains", "not_contains", "starts_with", "ends_with", "in", "not_in", "is_empty", "is_not_empty"}).Draw(t, "op")
		switch op {
		case "in", "not_in":
			value = genValues(t)
		case "contains", "not_contains":
			if value = word(t); rapid.Bool().Draw(t, "list") {
				value = genValues(t)
			}
		default:
			if value = word(t); kind == "custom" && rapid.Bool().Draw(t, "as number") {
				value = number(t)
			}
		}
	}
	if op == "is_empty" || op == "is_not_empty" {
		value = nil
	}
	return map[string]any{"id": "c", "field": field, "operator": op, "value": value}
}

func genGroup(t *rapid.T, depth int) map[string]any {
	var list []any
	for range rapid.IntRange(1, 3).Draw(t, "children") {
		if depth < 3 && rapid.IntRange(0, 3).Draw(t, "nest") == 0 {
			list = append(list, genGroup(t, depth+1))
		} else {
			list = append(list, genCondition(t))
		}
	}
	return map[string]any{"id": "g", "logic": rapid.SampledFrom([]string{"AND", "OR", "or"}).Draw(t, "logic"), "conditions": list}
}

func genSettings(leads []message.Lead) *rapid.Generator[map[string]any] {
	return rapid.Custom(func(t *rapid.T) map[string]any {
		s := map[string]any{"match": rapid.SampledFrom([]string{"all", "any"}).Draw(t, "match")}
		some := func(label string) bool { return rapid.IntRange(0, 3).Draw(t, label) == 0 }
		ids := func(label string) []any {
			var list []any
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(leads)), 1, 60).Draw(t, label) {
				id := uuid.NewSHA1(uuid.NameSpaceOID, []byte(strconv.Itoa(i))).String()
				if i < len(leads) {
					id = leads[i].ID.String()
				}
				list = append(list, id)
			}
			return list
		}
		if !some("no filter") {
			s["filters"] = genGroup(t, 1)
		}
		if some("keyword") {
			s["search_keyword"] = word(t) + "x"[:rapid.IntRange(0, 1).Draw(t, "x")]
		}
		if some("assignees") {
			s["assignees"] = []any{rapid.SampledFrom(assignees).Draw(t, "assignee"), "nobody"}
		}
		if some("ids") {
			s["lead_ids"] = ids("id")
		}
		if some("exclude ids") {
			s["exclude_lead_ids"] = ids("excluded")
		}
		if some("exclude tags") {
			s["exclude_tags"] = genValues(t)
		}
		criteria := 0
		for _, name := range []string{"filters", "search_keyword", "assignees", "lead_ids"} {
			if _, given := s[name]; given {
				criteria++
			}
		}
		if criteria == 0 || some("all leads") {
			s["all_leads"] = true
		}
		return s
	})
}

// The evaluator, SQLite, and PostgreSQL under two locales select the same leads, in the same order, for random criteria.
func TestTheSameAudienceEverywhere(t *testing.T) {
	t.Parallel()
	const people = 250
	leads := make([]message.Lead, people)
	for i := range leads {
		leads[i] = genLead.Example(i)
	}
	slices.SortFunc(leads, func(a, b message.Lead) int { return slices.Compare(a.ID[:], b.ID[:]) })
	leads = slices.CompactFunc(leads, func(a, b message.Lead) bool { return a.ID == b.ID })
	stores := map[string]*storetest.Store{}
	for _, kind := range []string{testenv.SQLite, testenv.Postgres, testenv.PostgresC} {
		t.Run(kind, func(t *testing.T) {
			if kind != testenv.SQLite {
				testenv.PostgresServer(t) // without one this kind is skipped, or fails in CI
			}
		})
		if kind == testenv.SQLite || testenv.HasPostgres() {
			s := storetest.New(t, kind)
			must(t, s.InsertLeads(t.Context(), leads))
			stores[kind] = s
		}
	}
	persons := make([]*audience.Person, len(leads))
	for i := range leads {
		persons[i] = audience.NewPerson(&leads[i])
	}
	settings := genSettings(leads)
	rapid.Check(t, func(rt *rapid.T) {
		request := settings.Draw(rt, "settings")
		c := storetest.ParseSettings(rt, request, moment)
		var want []uuid.UUID
		for i, p := range persons {
			if c.Match(p) {
				want = append(want, leads[i].ID)
			}
		}
		for kind, s := range stores {
			if got := storetest.ResolveAll(rt, s, c, 40); !slices.Equal(got, want) {
				b, _ := json.Marshal(request)
				rt.Fatalf("%s: %d leads, the evaluator %d, of %s\n%s", kind, len(got), len(want), b, difference(leads, got, want))
			}
		}
		b, err := json.Marshal(c)
		if err != nil {
			rt.Fatal(err)
		}
		var back audience.Criteria
		if err := json.Unmarshal(b, &back); err != nil {
			rt.Fatal(err)
		}
		for i, p := range persons {
			if back.Match(p) != slices.Contains(want, leads[i].ID) {
				rt.Fatalf("criteria do not survive being stored: %s", b)
			}
		}
	})
}

func difference(leads []message.Lead, got, want []uuid.UUID) string {
	in := map[uuid.UUID]int{}
	for _, id := range got {
		in[id]++
	}
	for _, id := range want {
		in[id]--
	}
	for _, id := range slices.Collect(maps.Keys(in)) {
		for i := range leads {
			if in[id] != 0 && leads[i].ID == id {
				b, _ := json.Marshal(leads[i])
				return fmt.Sprintf("for example (%+d) %s", in[id], b)
			}
		}
	}
	return ""
}

// insertNumbered inserts n leads whose ids count up from 1. The i-th is named "n" and i mod 1000.
func insertNumbered(t *testing.T, s *storetest.Store, n int) {
	t.Helper()
	id := "printf('%08x-0000-7000-8000-000000000000', i)"
	if s.IsPostgres() {
		id = "(lpad(to_hex(i), 8, '0') || '-0000-7000-8000-000000000000')::uuid"
	}
	_, err := storetest.Raw(t, s.URL).ExecContext(t.Context(), `
INSERT INTO leads (id, first_name, first_name_fold, email, email_fold, search_text, created_at, updated_at)
WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < $1)
SELECT `+id+`, 'n' || (i % 1000), 'n' || (i % 1000), i || '@example.com', i || '@example.com', 'n' || (i % 1000) || ' ' || i || '@example.com', $2, $2 FROM numbers`,
		n, moment)
	must(t, err)
}

// named is a filter for the first n names of insertNumbered.
func named(n int) map[string]any {
	names := make([]any, n)
	for i := range names {
		names[i] = "N" + strconv.Itoa(i)
	}
	return map[string]any{"filters": map[string]any{"conditions": []any{map[string]any{"field": "first_name", "operator": "in", "value": names}}}}
}

// An audience is resolved in ranges of ids. Each lead is found once, in the order of ids. A range that yields less than an eighth
// of a page is followed by one of eight times its size.
func TestRangesFindEachLeadOnce(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		const n, limit = 45_000, 4_000
		insertNumbered(t, s, n)
		walk := func(settings map[string]any, limit int) (got []uuid.UUID, sizes []string) {
			t.Helper()
			criteria := storetest.ParseSettings(t, settings, moment)
			for cursor, done := "", false; !done; {
				page, err := s.Resolve(t.Context(), criteria, message.Email, cursor, limit)
				must(t, err)
				for _, found := range page.Candidates {
					got = append(got, found.LeadID)
				}
				if cursor, done = page.Next, page.Done; !done {
					sizes = append(sizes, strings.SplitN(cursor, "/", 2)[1])
				}
			}
			return got, sizes
		}
		full := "20000"
		for name, c := range map[string]struct {
			settings map[string]any
			want     int
			sizes    []string // of the ranges after the first
		}{
			"all":                 {map[string]any{"all_leads": true}, n, []string{full, full, full, full, full, full, full, full, full, full, full}},
			"a quarter of a page": {named(50), 50 * n / 1000, []string{full, full}},
			"an eighth of a page": {named(25), 25 * n / 1000, []string{full, full}},
			"less than that":      {named(24), 24 * n / 1000, []string{"160000"}},
			"one in 1000":         {map[string]any{"search_keyword": "n777 "}, n / 1000, []string{"160000"}},
			"none":                {map[string]any{"search_keyword": "no such name"}, 0, []string{"160000"}},
			"all but one":         {map[string]any{"all_leads": true, "exclude_lead_ids": []any{"00000001-0000-7000-8000-000000000000"}}, n - 1, []string{full, full, full, full, full, full, full, full, full, full, full}},
		} {
			got, sizes := walk(c.settings, limit)
			if len(got) != c.want || !slices.IsSortedFunc(got, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }) || len(slices.Compact(got)) != c.want {
				t.Errorf("%s: %d leads, want %d, in order and each once", name, len(got), c.want)
			}
			if !slices.Equal(sizes, c.sizes) {
				t.Errorf("%s: ranges of %v leads after the first, want %v", name, sizes, c.sizes)
			}
		}
		// Of the first 20,000 leads 111 match, fewer than an eighth of a page: the range grows. It then fills its page with 1,000 leads, and
		// shrinks.
		got, sizes := walk(map[string]any{"filters": map[string]any{"conditions": []any{map[string]any{"field": "email", "operator": "starts_with", "value": "21"}}}}, 1_000)
		if want := []string{"160000", full, "160000"}; len(got) != 1_111 || !slices.Equal(sizes, want) {
			t.Errorf("%d leads, ranges of %v leads after the first, want %v", len(got), sizes, want)
		}
	})
}

func TestResolveByIDs(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		ctx := t.Context()
		now := store.Stamp(time.Now())
		var leads []message.Lead
		var ids []uuid.UUID
		for i := range 5 {
			l := message.Lead{ID: newID(), Email: string(rune('a'+i)) + "@example.com", Phone: "1", CreatedAt: now, UpdatedAt: now}
			leads, ids = append(leads, l), append(ids, l.ID)
		}
		must(t, s.InsertLeads(ctx, leads))
		c := &audience.Criteria{LeadIDs: append(ids, newID())} // the last has no lead
		var found []audience.Candidate
		var missing int64
		for cursor, done := "", false; !done; {
			page, err := s.Resolve(ctx, c, message.Email, cursor, 2)
			must(t, err)
			found = append(found, page.Candidates...)
			missing += page.NotFound
			cursor, done = page.Next, page.Done
		}
		if len(found) != 5 || missing != 1 || found[0].LeadID != ids[0] || found[0].Address != "a@example.com" {
			t.Errorf("found %v, missing %d", found, missing)
		}
	})
}

// A cursor carries the bound that an earlier page found: later pages are no larger, whether they are full or empty.
func TestACursorBoundsItsPages(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		const n = 1_000
		insertNumbered(t, s, n)
		var ids []any
		for i := 1; i <= 5; i++ {
			ids = append(ids, fmt.Sprintf("%08x-0000-7000-8000-000000000000", i))
		}
		begin := uuid.Nil.String() + "/300/300"
		for name, c := range map[string]struct {
			settings map[string]any
			cursor   string
			limit    int
			want     int
			sizes    []string // of the cursors of all pages but the last
		}{
			"full pages":  {map[string]any{"all_leads": true}, begin, 250, n, []string{"300/300", "300/300", "300/300", "300/300"}},
			"no matches":  {map[string]any{"search_keyword": "no such name"}, begin, 250, 0, []string{"300/300", "300/300", "300/300"}},
			"ids":         {map[string]any{"lead_ids": ids}, "0/2", 10, 5, []string{"2", "2"}},
			"ids, larger": {map[string]any{"lead_ids": ids}, "0/20", 2, 5, []string{"2", "2"}},
		} {
			criteria := storetest.ParseSettings(t, c.settings, moment)
			found, sizes := 0, []string(nil)
			for cursor, done := c.cursor, false; !done; {
				page, err := s.Resolve(t.Context(), criteria, message.Email, cursor, c.limit)
				must(t, err)
				found += len(page.Candidates)
				if cursor, done = page.Next, page.Done; !done {
					sizes = append(sizes, strings.SplitN(cursor, "/", 2)[1])
				}
			}
			if found != c.want || !slices.Equal(sizes, c.sizes) {
				t.Errorf("%s: %d leads, want %d; sizes %v, want %v", name, found, c.want, sizes, c.sizes)
			}
		}
	})
}

// Requested ids without a lead are counted once, whether the ids decide alone or with other criteria.
func TestIDsWithoutALeadAreCounted(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		insertNumbered(t, s, 6)
		ids := []any{newID().String(), newID().String(), newID().String()}
		for i := 1; i <= 4; i++ {
			ids = append(ids, fmt.Sprintf("%08x-0000-7000-8000-000000000000", i))
		}
		filter := named(3)["filters"] // matches the leads 1 and 2
		for name, c := range map[string]struct {
			settings map[string]any
			found    int
		}{
			"ids":            {map[string]any{"lead_ids": ids}, 4},
			"ids and filter": {map[string]any{"lead_ids": ids, "filters": filter}, 2},
			"ids or filter":  {map[string]any{"lead_ids": ids, "filters": map[string]any{"conditions": []any{map[string]any{"field": "first_name", "operator": "equals", "value": "n6"}}}, "match": "any"}, 5},
		} {
			criteria := storetest.ParseSettings(t, c.settings, moment)
			found, notFound, pages := 0, int64(0), 0
			for cursor, done := "", false; !done; pages++ {
				page, err := s.Resolve(t.Context(), criteria, message.Email, cursor, 2)
				must(t, err)
				found, notFound = found+len(page.Candidates), notFound+page.NotFound
				cursor, done = page.Next, page.Done
			}
			if found != c.found || notFound != 3 || pages < 2 {
				t.Errorf("%s: %d leads, %d ids without a lead, in %d pages; want %d and 3", name, found, notFound, pages, c.found)
			}
		}
	})
}
