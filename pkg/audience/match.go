package audience

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// Person is a lead with its values folded once for all conditions.
type Person struct {
	lead   *message.Lead
	text   map[string]string
	tags   map[string]bool
	search string
	custom map[string]string
	number map[string]string // sort keys
	date   map[string]string // date keys
}

// NewPerson folds the values of a lead.
func NewPerson(l *message.Lead) *Person {
	fields := FoldedFields(l)
	p := &Person{lead: l, text: map[string]string{}, tags: map[string]bool{}, search: SearchText(fields)}
	for _, f := range fields {
		p.text[f.Name] = f.Value
	}
	for _, t := range FoldedTags(l.Tags) {
		p.tags[t] = true
	}
	p.custom, p.number = FoldedCustom(l.CustomFields)
	p.date = CustomDates(l.CustomFields)
	return p
}

// Match reports whether a lead belongs to the audience. The SQL that pkg/store/search compiles from the same criteria returns the
// same result for every lead.
func (c *Criteria) Match(p *Person) bool {
	id := p.lead.ID
	if slices.Contains(c.ExcludeLeadIDs, id) || p.hasAny(c.ExcludeTags) {
		return false
	}
	results := c.criteria(p)
	if len(results) == 0 {
		return c.AllLeads
	}
	want := !c.Any // with "all" the first false decides, with "any" the first true
	for _, r := range results {
		if r.matched != want {
			return !want
		}
	}
	return want
}

type criterion struct {
	name    string
	matched bool
}

// criteria evaluates each given criterion. Every lead meets all_leads.
func (c *Criteria) criteria(p *Person) []criterion {
	var out []criterion
	if len(c.LeadIDs) > 0 {
		_, found := slices.BinarySearchFunc(c.LeadIDs, p.lead.ID, compareIDs)
		out = append(out, criterion{"lead_ids", found})
	}
	if c.Filter != nil {
		out = append(out, criterion{"filters", c.Filter.match(p)})
	}
	if len(c.Words) > 0 {
		ok := true
		for _, w := range c.Words {
			ok = ok && p.hasWord(w)
		}
		out = append(out, criterion{"search_keyword", ok})
	}
	if len(c.Assignees) > 0 {
		out = append(out, criterion{"assignees", p.lead.AssigneeID != "" && slices.Contains(c.Assignees, p.lead.AssigneeID)})
	}
	if c.AllLeads {
		out = append(out, criterion{"all_leads", true})
	}
	return out
}

// hasWord reports whether a folded word of search_keyword occurs in the lead.
func (p *Person) hasWord(word string) bool {
	if slices.ContainsFunc(WordForms(word), func(form string) bool { return strings.Contains(p.search, form) }) {
		return true
	}
	digits, ok := WordDigits(word)
	return ok && strings.Contains(p.text["phone"], digits)
}

func (n *Node) match(p *Person) bool {
	if n.Cond != nil {
		return n.Cond.match(p)
	}
	for i := range n.Children {
		if n.Children[i].match(p) == n.Or {
			return n.Or
		}
	}
	return !n.Or
}

func (c *Condition) match(p *Person) bool {
	switch c.Kind {
	case Time:
		return c.matchTime(p.time(c.Field))
	case Tags:
		return c.matchTags(p)
	case Custom:
		return c.matchCustom(p)
	default:
		return c.matchText(p.text[c.Field])
	}
}

func (c *Condition) matchCustom(p *Person) bool {
	switch key := c.Key(); {
	case c.Times != nil:
		d, ok := p.date[key]
		return ok && c.matchDate(d)
	case c.Numbers != nil:
		n, ok := p.number[key]
		return ok && c.matchNumber(n)
	default:
		return c.matchText(p.custom[key])
	}
}

func (c *Condition) matchDate(key string) bool {
	return slices.ContainsFunc(c.DateRanges(), func(r DateRange) bool { return key >= r.From && key < r.To })
}

func (c *Condition) matchText(v string) bool {
	any := func(test func(string, string) bool) bool {
		return slices.ContainsFunc(c.Values, func(x string) bool { return test(v, x) })
	}
	switch c.Op {
	case Equals, In:
		return slices.Contains(c.Values, v)
	case NotEquals, NotIn:
		return !slices.Contains(c.Values, v)
	case Contains:
		return any(strings.Contains)
	case NotContains:
		return !any(strings.Contains)
	case StartsWith:
		return any(strings.HasPrefix)
	case EndsWith:
		return any(strings.HasSuffix)
	case IsEmpty:
		return v == ""
	default:
		return v != ""
	}
}

func (c *Condition) matchNumber(n string) bool {
	keys := c.SortKeys()
	switch c.Op {
	case Greater:
		return n > keys[0]
	case AtLeast:
		return n >= keys[0]
	case Less:
		return n < keys[0]
	case AtMost:
		return n <= keys[0]
	default:
		return n >= keys[0] && n <= keys[1]
	}
}

func (c *Condition) matchTime(t *time.Time) bool {
	switch {
	case c.Op == IsEmpty:
		return t == nil
	case c.Op == IsNotEmpty:
		return t != nil
	case t == nil:
		return false
	}
	switch c.Op {
	case Before:
		return t.Before(c.Times[0])
	case After:
		return t.After(c.Times[0])
	default:
		return !t.Before(c.Times[0]) && !t.After(c.Times[1])
	}
}

func (c *Condition) matchTags(p *Person) bool {
	switch c.Op {
	case Contains:
		return p.hasAny(c.Values)
	case NotContains:
		return !p.hasAny(c.Values)
	case ContainsAll:
		return !slices.ContainsFunc(c.Values, func(t string) bool { return !p.tags[t] })
	case IsEmpty:
		return len(p.tags) == 0
	default:
		return len(p.tags) > 0
	}
}

func (p *Person) hasAny(tags []string) bool {
	return slices.ContainsFunc(tags, func(t string) bool { return p.tags[t] })
}

func (p *Person) time(field string) *time.Time {
	var t time.Time
	switch field {
	case "created_at":
		t = p.lead.CreatedAt
	case "updated_at":
		t = p.lead.UpdatedAt
	default:
		if p.lead.LastContactedAt == nil {
			return nil
		}
		t = *p.lead.LastContactedAt
	}
	t = t.Truncate(time.Microsecond)
	return &t
}

func compareIDs(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }
