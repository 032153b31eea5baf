package audience

import (
	"errors"
	"slices"
	"time"

	"herald/pkg/dates"
)

// Verdict is the result of one criterion, group or condition for a lead. Actual is the value that was compared. Note says why a
// condition on numbers or dates holds for no such value.
type Verdict struct {
	Criterion  string    `json:"criterion,omitempty"` // lead_ids, filters, search_keyword, assignees, all_leads, exclude_lead_ids, exclude_tags
	ID         string    `json:"id,omitempty"`
	Logic      string    `json:"logic,omitempty"`
	Field      string    `json:"field,omitempty"`
	Operator   Op        `json:"operator,omitempty"`
	Value      any       `json:"value,omitempty"`
	Actual     any       `json:"actual,omitempty"`
	Note       string    `json:"note,omitempty"`
	Matched    bool      `json:"matched"`
	Conditions []Verdict `json:"conditions,omitempty"`
}

// Explain evaluates each criterion, and each condition of a filter. matched is the result of Match. A matching exclusion removes
// the lead from the audience.
func (c *Criteria) Explain(p *Person) (matched bool, verdicts []Verdict) {
	for _, r := range c.criteria(p) {
		v := Verdict{Criterion: r.name, Matched: r.matched}
		switch r.name {
		case "filters":
			v = c.Filter.explain(p)
			v.Criterion = r.name
		case "search_keyword":
			v.Value, v.Actual = c.Words, p.search
		case "assignees":
			v.Value, v.Actual = c.Assignees, p.lead.AssigneeID
		}
		verdicts = append(verdicts, v)
	}
	if len(c.ExcludeLeadIDs) > 0 {
		verdicts = append(verdicts, Verdict{Criterion: "exclude_lead_ids", Matched: slices.Contains(c.ExcludeLeadIDs, p.lead.ID)})
	}
	if len(c.ExcludeTags) > 0 {
		verdicts = append(verdicts, Verdict{Criterion: "exclude_tags", Value: c.ExcludeTags, Actual: p.lead.Tags, Matched: p.hasAny(c.ExcludeTags)})
	}
	return c.Match(p), verdicts
}

func (n *Node) explain(p *Person) Verdict {
	v := Verdict{ID: n.ID, Matched: n.match(p)}
	if c := n.Cond; c != nil {
		v.Field, v.Operator, v.Value, v.Actual, v.Note = c.Field, c.Op, c.value(), p.actual(c), p.note(c)
		return v
	}
	if v.Logic = "AND"; n.Or {
		v.Logic = "OR"
	}
	for i := range n.Children {
		v.Conditions = append(v.Conditions, n.Children[i].explain(p))
	}
	return v
}

// value returns the values of a condition, nil for an operator without value.
func (c *Condition) value() any {
	switch {
	case len(c.Times) > 0:
		out := make([]string, len(c.Times))
		for i, t := range c.Times {
			out[i] = t.Format(time.RFC3339Nano)
		}
		return out
	case len(c.Numbers) > 0:
		return c.Numbers
	case len(c.Values) > 0:
		return c.Values
	}
	return nil
}

// actual returns the lead's value that a condition compares. A missing time is nil.
func (p *Person) actual(c *Condition) any {
	switch c.Kind {
	case Time:
		if t := p.time(c.Field); t != nil {
			return t.Format(time.RFC3339Nano)
		}
		return nil
	case Tags:
		return p.lead.Tags
	case Custom:
		return p.custom[c.Key()]
	default:
		return p.text[c.Field]
	}
}

// note returns why the lead's value of a custom field cannot be compared, "" if it can be or is missing.
func (p *Person) note(c *Condition) string {
	key := c.Key()
	if c.Kind != Custom || p.custom[key] == "" {
		return ""
	}
	_, isNumber := p.number[key]
	_, isDate := p.date[key]
	switch {
	case c.Numbers != nil && !isNumber:
		return "is not a number"
	case c.Times != nil && !isDate:
		if _, err := dateKey(p.lead.CustomFields[key]); errors.Is(err, dates.ErrAmbiguous) {
			return "is not a date: it " + err.Error()
		}
		return "is not a date"
	}
	return ""
}
