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

// The zones of requests: ahead of UTC and behind it, at the ends of the range, and with clocks that change at midnight.
var zones = []string{"", "UTC", "Europe/Berlin", "America/New_York", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kolkata", "America/Sao_Paulo", "Asia/Amman"}

// dateTexts are values of custom fields around moment and around changes of clocks: days, times with and without a zone, seconds
// since 1970, the ends of the calendar, and texts that are almost dates.
var dateTexts = []string{
	"2025-10-05", " 05.10.2025 ", "2025-10-04", "2025-10-06", "2025-10-01", "2025-10-10", "10/15/2025", "2025-10-05T12:00:00Z", "2025-10-05T12:00:00.000001Z",
	"2025-10-05T12:00:00.0000019Z", "2025-10-05T11:59:59.999999Z", "2025-10-05 12:00", "05.10.2025 14:00", "2025-10-05T14:00:00+02:00", "2025-10-06T02:00:00+14:00",
	"2025-10-05T00:00:00", "2025-10-05T23:59:59.999999", "2025-10-04T22:00:00Z", "2025-10-26 02:30", "2025-10-26T00:30:00Z", "2025-10-26T01:30:00Z", "2025-03-30 02:30",
	"2025-03-30", "2018-11-04", "2018-11-04 00:30", "2018-11-04T03:00:00Z", "2021-10-29", "2021-10-29 00:30", "2021-10-28T21:30:00Z", "1759665600", "1759665600000",
	"2024-02-29", "0001-01-01", "9999-12-31", "9999-12-31 23:59:59.999999", "9999-12-31T23:59:59Z",
	"2023-02-29", "1/2/2025", "10/5/2025", "0000-01-01", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "2025-10-5x", "D2025-10-05", "I2025-10-05T12:00:00.000000", "soon",
}

// dateBounds are dates and times of conditions, valid in every zone.
var dateBounds = []string{
	"2025-10-05", "05.10.2025", "2025-10-05T12:00:00Z", "2025-10-05 12:00", "2025-10-05T12:00:00.0000019Z", "2025-10-05T14:00:00+02:00", "2025-10-26", "2025-10-26 02:30",
	"2025-10-26T00:30:00Z", "2025-03-30", "2025-03-30 02:30", "2018-11-04", "2018-11-04 00:30", "2021-10-29", "2021-10-29 00:30", "2024-02-29", "0001-01-03", "9999-12-30",
}

func customValue(t *rapid.T) any {
	switch rapid.IntRange(0, 10).Draw(t, "kind") {
	case 8, 9:
		return rapid.SampledFrom(dateTexts).Draw(t, "date")
	case 10:
		return rapid.SampledFrom([]any{json.Number("1759665600"), json.Number("1759665600001"), json.Number("20251005"), []any{"2025-10-05"}, 1759665600.0}).Draw(t, "no text")
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
	switch rapid.IntRange(0, 3).Draw(t, "form") {
	case 0:
		return at.Format(time.DateOnly)
	case 1:
		return at.Format("02.01.2006 15:04")
	case 2:
		return rapid.SampledFrom(dateBounds).Draw(t, "bound")
	}
	return at.In(time.FixedZone("x", 7200)).Format(time.RFC3339)
}

// genDates draws the value of an operator of times and dates.
func genDates(t *rapid.T, op string, least int) any {
	switch op {
	case "between":
		return []any{genTime(t), genTime(t)}
	case "within_last_days", "within_next_days":
		return json.Number(strconv.Itoa(rapid.IntRange(least, 6).Draw(t, "days")))
	}
	return genTime(t)
}

func genValues(t *rapid.T) []any {
	var list []any
	for range rapid.IntRange(1, 3).Draw(t, "values") {
		list = append(list, word(t))
	}
	return list
}

// genTags draws whole tags, so that leads have all of them. A blank value is a mistake.
func genTags(t *rapid.T) []any {
	var list []any
	for range rapid.IntRange(1, 3).Draw(t, "tags") {
		list = append(list, rapid.SampledFrom(words).Filter(func(w string) bool { return strings.TrimSpace(w) != "" }).Draw(t, "tag"))
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
	kind := rapid.SampledFrom([]string{"text", "text", "text", "tags", "time", "custom", "number", "date", "date"}).Draw(t, "kind")
	var field, op string
	var value any
	switch kind {
	case "time":
		field = rapid.SampledFrom([]string{"created_at", "updated_at", "last_contacted_at"}).Draw(t, "field")
		op = rapid.SampledFrom([]string{"equals", "before", "after", "between", "within_last_days", "within_next_days", "is_empty", "is_not_empty"}).Draw(t, "op")
		value = genDates(t, op, 1)
	case "date":
		field = "custom_fields." + rapid.SampledFrom(keys).Draw(t, "key")
		op = rapid.SampledFrom([]string{"before", "after", "between", "within_last_days", "within_next_days"}).Draw(t, "op")
		value = genDates(t, op, 0)
	case "tags":
		field, op = "tags", rapid.SampledFrom([]string{"contains", "contains_all", "not_contains", "is_empty", "is_not_empty"}).Draw(t, "op")
		value = genTags(t)
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
		s := map[string]any{"match": rapid.SampledFrom([]string{"all", "any"}).Draw(t, "match"), "timezone": rapid.SampledFrom(zones).Draw(t, "zone")}
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

// Of tags, contains needs one of the values, contains_all each of them, and not_contains none. Tags are compared as a whole and
// in any letter case.
func TestTagOperators(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		names := map[uuid.UUID]string{}
		for name, tags := range map[string][]string{
			"none": nil, "empty": {}, "vip": {"VIP"}, "berlin": {"Berlin"}, "both": {"vip", "berlin"}, "three": {"Berlin", "new", "Vip"},
			"longer": {"vip 2", "west berlin"},
		} {
			id := storetest.Lead(t, s, func(l *message.Lead) { l.Tags = tags })
			names[id] = name
		}
		condition := func(op string, value any) map[string]any {
			c := map[string]any{"field": "tags", "operator": op}
			if value != nil {
				c["value"] = value
			}
			return map[string]any{"filters": map[string]any{"conditions": []any{c}}}
		}
		list := func(tags ...any) []any { return tags }
		for name, c := range map[string]struct {
			settings map[string]any
			want     string
		}{
			"contains one":              {condition("contains", "vip"), "both three vip"},
			"contains one of two":       {condition("contains", list("BERLIN", "vip")), "berlin both three vip"},
			"contains one of one known": {condition("contains", list("no such tag", "vip")), "both three vip"},
			"all of one":                {condition("contains_all", "Berlin"), "berlin both three"},
			"all of two":                {condition("contains_all", list("berlin", "VIP")), "both three"},
			"all of three":              {condition("contains_all", list("vip", "new", "berlin")), "three"},
			"all of one known":          {condition("contains_all", list("vip", "no such tag")), ""},
			"all of a repeated one":     {condition("contains_all", list("vip", "VIP")), "both three vip"},
			"none of one":               {condition("not_contains", "vip"), "berlin empty longer none"},
			"none of two":               {condition("not_contains", list("vip", "berlin")), "empty longer none"},
			"empty":                     {condition("is_empty", nil), "empty none"},
			"not empty":                 {condition("is_not_empty", nil), "berlin both longer three vip"},
			"excluded":                  {map[string]any{"all_leads": true, "exclude_tags": list("vip", "berlin")}, "empty longer none"},
		} {
			var got []string
			for _, id := range storetest.ResolveAll(t, s, storetest.ParseSettings(t, c.settings, moment), 10) {
				got = append(got, names[id])
			}
			slices.Sort(got)
			if found := strings.Join(got, " "); found != c.want {
				t.Errorf("%s: found %q, want %q", name, found, c.want)
			}
		}
	})
}
