package search

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/message"
	"herald/pkg/store"
)

// compiler compiles an audience's criteria to a condition on leads. Its SQL consists of constants of this file and column names of
// the audience package; values of the request are parameters only. The condition selects exactly the leads for which
// audience.Criteria.Match is true; a property test compares the evaluator with both databases. No condition is NULL: folded
// columns are NOT NULL, and other columns stand in COALESCE, because NOT (NULL) would drop leads that match.
//
// The plans that PostgreSQL chooses on a million leads, with the indexes of 00001_begin.sql:
//
//	search_text LIKE '%word%', three characters and more   Bitmap Index Scan on leads_search
//	the same, shorter                                      Parallel Seq Scan on leads
//	tags_fold ?| (…)                                       Bitmap Index Scan on leads_tags
//	assignee_id = ANY (…)                                  Bitmap Index Scan on leads_assignee
//	id > … AND id <= … AND (…) ORDER BY id LIMIT …         Index Scan on leads_pkey, filtered
type compiler struct {
	postgres bool
	args     []any
	searches int // values with a look-up in search_text so far
}

// arg adds a parameter and returns its placeholder.
func (c *compiler) arg(v any) string {
	c.args = append(c.args, v)
	if c.postgres {
		return "$" + strconv.Itoa(len(c.args))
	}
	return "?" + strconv.Itoa(len(c.args))
}

// in is the condition that a column has one of values. The values are one parameter, because PostgreSQL bounds parameters at
// 65,535 and SQLite at 32,766.
func (c *compiler) in(column string, values []string, cast string) string {
	if c.postgres {
		return column + " = ANY(" + c.arg(values) + "::" + cast + "[])"
	}
	b, _ := json.Marshal(values) // strings always encode
	return column + " IN (SELECT value FROM json_each(" + c.arg(string(b)) + "))"
}

func (c *compiler) ids(ids []uuid.UUID) string {
	values := make([]string, len(ids))
	for i, id := range ids {
		values[i] = id.String()
	}
	return c.in("leads.id", values, "uuid")
}

func not(s string) string { return "NOT (" + s + ")" }

// join combines conditions by OR or AND as a balanced tree. SQLite bounds the depth of an expression at 1,000, and a chain of
// conditions is as deep as it is long.
func join(parts []string, or bool) string {
	if n := len(parts); n > 2 {
		parts = []string{join(parts[:n/2], or), join(parts[n/2:], or)}
	}
	if or {
		return "(" + strings.Join(parts, " OR ") + ")"
	}
	return "(" + strings.Join(parts, " AND ") + ")"
}

// criteria compiles criteria and exclusions. withIDs false leaves the requested ids out, for a caller that pages through them.
func (c *compiler) criteria(a *audience.Criteria, withIDs bool) string {
	all := c.met(a, withIDs)
	if len(a.ExcludeLeadIDs) > 0 {
		all = append(all, not(c.ids(a.ExcludeLeadIDs)))
	}
	if len(a.ExcludeTags) > 0 {
		all = append(all, not(c.hasTag(a.ExcludeTags)))
	}
	if len(all) == 0 {
		return "true"
	}
	return join(all, false)
}

// met compiles the criteria that select leads, without the exclusions. The result is empty if every lead is selected.
func (c *compiler) met(a *audience.Criteria, withIDs bool) []string {
	if a.AllLeads && a.Any {
		return nil
	}
	var parts []string
	if len(a.LeadIDs) > 0 && withIDs {
		parts = append(parts, c.ids(a.LeadIDs))
	}
	if a.Filter != nil {
		parts = append(parts, c.node(a.Filter))
	}
	if len(a.Words) > 0 {
		words := make([]string, len(a.Words))
		for i, w := range a.Words {
			words[i] = c.word(w)
		}
		parts = append(parts, join(words, false))
	}
	if len(a.Assignees) > 0 {
		parts = append(parts, "(assignee_id <> '' AND "+c.in("assignee_id", a.Assignees, "text")+")")
	}
	if len(parts) == 0 {
		return nil
	}
	return []string{join(parts, a.Any)}
}

func (c *compiler) node(n *audience.Node) string {
	if n.Cond != nil {
		return c.condition(n.Cond)
	}
	parts := make([]string, len(n.Children))
	for i := range n.Children {
		parts[i] = c.node(&n.Children[i])
	}
	return join(parts, n.Or)
}

func (c *compiler) condition(cond *audience.Condition) string {
	switch cond.Kind {
	case audience.Time:
		return c.time(cond)
	case audience.Tags:
		return c.tags(cond)
	case audience.Custom:
		return c.custom(cond)
	}
	return c.text(cond.Field+"_fold", cond, slices.Contains(audience.Searched, cond.Field))
}

func (c *compiler) custom(cond *audience.Condition) string {
	switch {
	case cond.Times != nil:
		return c.date(cond)
	case cond.Numbers != nil:
		return c.number(cond)
	}
	return c.text("COALESCE(custom_text ->> "+c.key(cond)+", '')", cond, false)
}

// key returns a parameter with a custom field's key, for ->>.
func (c *compiler) key(cond *audience.Condition) string {
	if c.postgres {
		return c.arg(store.CustomKey(cond.Key())) + "::text"
	}
	return c.arg(store.CustomKey(cond.Key()))
}

// trigrams is the minimum length, in characters, of a substring that the trigram index finds.
const trigrams = 3

// maxSearches bounds the values of an audience with a look-up in search_text. Beyond it the index saves nothing, because the leads of
// a page are read anyway, and each look-up costs one comparison per lead, whereas a list costs one for all values.
const maxSearches = 100

// text compares a text column. For a column whose values are part of search_text (searched), the condition begins with a look-up
// there, because only search_text has an index for substrings.
func (c *compiler) text(column string, cond *audience.Condition, searched bool) string {
	each := func(test func(v string) string) string {
		if c.postgres && !searched {
			return c.likeAny(column, cond)
		}
		parts := make([]string, len(cond.Values))
		for i, v := range cond.Values {
			var first string
			if searched && c.postgres && utf8.RuneCountInString(message.BaseLetters(v)) >= trigrams {
				first = c.searched(searchForms(v)) + " AND "
			}
			parts[i] = "(" + first + test(v) + ")"
		}
		return join(parts, true)
	}
	if c.searches += len(cond.Values); c.searches > maxSearches {
		searched = false
	}
	switch cond.Op {
	case audience.Equals, audience.In:
		if searched {
			return each(func(v string) string { return column + " = " + c.arg(v) })
		}
		return c.in(column, cond.Values, "text")
	case audience.NotEquals, audience.NotIn:
		return not(c.in(column, cond.Values, "text"))
	case audience.Contains:
		return each(func(v string) string { return c.contains(column, v) })
	case audience.NotContains:
		searched = false // an index cannot find the absence of a value
		return not(each(func(v string) string { return c.contains(column, v) }))
	case audience.StartsWith:
		return each(func(v string) string { return c.startsWith(column, v) })
	case audience.EndsWith:
		return each(func(v string) string { return c.endsWith(column, v) })
	case audience.IsEmpty:
		return column + " = ''"
	default:
		return column + " <> ''"
	}
}

// word is the condition that a word of search_keyword occurs in a lead.
func (c *compiler) word(w string) string {
	found := c.searched(audience.WordForms(w))
	if digits, ok := audience.WordDigits(w); ok {
		phone := c.contains("phone_fold", digits)
		if utf8.RuneCountInString(digits) >= trigrams {
			phone = c.contains("search_text", digits) + " AND " + phone
		}
		found = "(" + found + " OR (" + phone + "))"
	}
	return found
}

// searchForms returns the texts of which one is part of search_text if a searched column contains v: search_text is in base
// letters, or, where the backfill has not reached the lead, folded like the column.
func searchForms(v string) []string {
	if base := message.BaseLetters(v); base != v {
		return []string{base, v}
	}
	return []string{v}
}

// searched is the condition that search_text contains one of the texts.
func (c *compiler) searched(forms []string) string {
	parts := make([]string, len(forms))
	for i, form := range forms {
		parts[i] = c.contains("search_text", form)
	}
	return join(parts, true)
}

// likeAny compares a column with all values of a condition in one expression. The column is then read once per lead, and reading it
// from a JSON document is most of the work.
func (c *compiler) likeAny(column string, cond *audience.Condition) string {
	before, after := "%", "%"
	if cond.Op == audience.StartsWith {
		before = ""
	}
	if cond.Op == audience.EndsWith {
		after = ""
	}
	patterns := make([]string, len(cond.Values))
	for i, v := range cond.Values {
		patterns[i] = before + EscapeLike(v) + after
	}
	return column + " LIKE ANY(" + c.arg(patterns) + "::text[])"
}

func (c *compiler) contains(column, v string) string {
	if c.postgres {
		return column + " LIKE " + c.arg("%"+EscapeLike(v)+"%")
	}
	return "instr(" + column + ", " + c.arg(v) + ") > 0"
}

func (c *compiler) startsWith(column, v string) string {
	if c.postgres {
		return column + " LIKE " + c.arg(EscapeLike(v)+"%")
	}
	n := utf8.RuneCountInString(v)
	return "substr(" + column + ", 1, " + strconv.Itoa(n) + ") = " + c.arg(v)
}

func (c *compiler) endsWith(column, v string) string {
	if c.postgres {
		return column + " LIKE " + c.arg("%"+EscapeLike(v))
	}
	n := utf8.RuneCountInString(v)
	return "substr(" + column + ", " + strconv.Itoa(-n) + ") = " + c.arg(v)
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// EscapeLike escapes the wildcards of LIKE in a value.
func EscapeLike(v string) string { return likeEscaper.Replace(v) }

// number compares sort keys as text, which is exact and cannot fail for any value. Rows that the backfill has not reached have JSON
// numbers, which are compared as numbers.
func (c *compiler) number(cond *audience.Condition) string {
	keys := cond.SortKeys()
	field := c.key(cond)
	compare := func(op string, i int) string {
		key, n := c.arg(keys[i]), c.arg(cond.Numbers[i].String())
		if c.postgres {
			return "COALESCE(CASE jsonb_typeof(custom_number -> " + field + ") WHEN 'string' THEN (custom_number ->> " + field + ") COLLATE \"C\" " + op + " " + key +
				"::text WHEN 'number' THEN (custom_number ->> " + field + ")::numeric " + op + " " + n + "::text::numeric END, false)"
		}
		return "COALESCE(CASE typeof(custom_number ->> " + field + ") WHEN 'text' THEN (custom_number ->> " + field + ") " + op + " " + key +
			" ELSE (custom_number ->> " + field + ") " + op + " CAST(" + n + " AS NUMERIC) END, 0)"
	}
	switch cond.Op {
	case audience.Greater:
		return compare(">", 0)
	case audience.AtLeast:
		return compare(">=", 0)
	case audience.Less:
		return compare("<", 0)
	case audience.AtMost:
		return compare("<=", 0)
	default:
		return "(" + compare(">=", 0) + " AND " + compare("<=", 1) + ")"
	}
}

// date compares date keys as text, byte by byte. A row that the backfill has not reached has no date keys, and does not match.
func (c *compiler) date(cond *audience.Condition) string {
	key := "(custom_date ->> " + c.key(cond) + ")"
	if c.postgres {
		key += ` COLLATE "C"`
	}
	sql := "COALESCE(CASE substr(" + key + ", 1, 1)"
	for _, r := range cond.DateRanges() {
		sql += " WHEN " + c.arg(r.Form) + " THEN " + key + " >= " + c.arg(r.From) + " AND " + key + " < " + c.arg(r.To)
	}
	return sql + " END, false)"
}

func (c *compiler) time(cond *audience.Condition) string {
	compare := func(op string, t time.Time) string {
		p := c.arg(store.Stamp(t))
		if c.postgres {
			p += "::timestamptz"
		}
		return "COALESCE(" + cond.Field + " " + op + " " + p + ", false)"
	}
	switch cond.Op {
	case audience.Before:
		return compare("<", cond.Times[0])
	case audience.After:
		return compare(">", cond.Times[0])
	case audience.IsEmpty:
		return cond.Field + " IS NULL"
	case audience.IsNotEmpty:
		return cond.Field + " IS NOT NULL"
	default:
		return "(" + compare(">=", cond.Times[0]) + " AND " + compare("<=", cond.Times[1]) + ")"
	}
}

func (c *compiler) tags(cond *audience.Condition) string {
	switch cond.Op {
	case audience.Contains:
		return c.hasTag(cond.Values)
	case audience.NotContains:
		return not(c.hasTag(cond.Values))
	case audience.ContainsAll:
		if c.postgres {
			return "(tags_fold IS NOT NULL AND tags_fold ?& " + c.arg(cond.Values) + "::text[])"
		}
		parts := make([]string, len(cond.Values))
		for i, v := range cond.Values {
			parts[i] = c.hasTag([]string{v})
		}
		return join(parts, false)
	case audience.IsEmpty:
		return "tags_fold IS NULL"
	default:
		return "tags_fold IS NOT NULL"
	}
}

func (c *compiler) hasTag(tags []string) string {
	if c.postgres {
		return "(tags_fold IS NOT NULL AND tags_fold ?| " + c.arg(tags) + "::text[])"
	}
	return "EXISTS (SELECT 1 FROM json_each(tags_fold) t WHERE " + c.in("t.value", tags, "text") + ")"
}
