// Package audience says who gets a bulk: the criteria of a request, parsed and validated, the port that resolves them
// to leads page by page, and what makes a lead's stored address usable. It knows no SQL.
//
// A filter compares folded values. A missing value and an empty string are the same: is_empty finds it, every operator
// that needs a value (equals, contains, starts_with, ends_with, in, and all those of numbers and times) does not hold for
// it, and the negated ones (not_equals, not_contains, not_in) do. A custom field that is no number fits no comparison of
// numbers; null in a custom field is missing.
package audience

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nyaruka/phonenumbers"

	"herald/pkg/message"
	"herald/pkg/wire"
)

// Bounds of bulk_settings.
const (
	MaxLeadIDs   = 100_000
	MaxKeyword   = 200 // characters
	MaxAssignees = 1_000
	maxAssignee  = 128 // characters
	maxTags      = 1_000
	maxTag       = 200 // characters

	// MaxComparisons bounds what resolving criteria costs for one lead. One comparison takes PostgreSQL some 150 ns, so
	// the most expensive criteria take 3 s for the 20,000 leads that a page looks at.
	MaxComparisons = 1_000
	tagsCompared   = 3 // tags that are looked for in the time of one comparison
)

// Criteria describe an audience. A lead belongs to it when it meets every criterion that is given, or, with Any, at
// least one, and is not excluded.
type Criteria struct {
	LeadIDs                  []uuid.UUID `json:"lead_ids,omitempty"` // sorted, each once
	Filter                   *Node       `json:"filter,omitempty"`
	Words                    []string    `json:"words,omitempty"` // of search_keyword, folded
	Assignees                []string    `json:"assignees,omitempty"`
	AllLeads                 bool        `json:"all_leads,omitempty"`
	Any                      bool        `json:"any,omitempty"`
	ExcludeLeadIDs           []uuid.UUID `json:"exclude_lead_ids,omitempty"`
	ExcludeTags              []string    `json:"exclude_tags,omitempty"` // folded
	AllowDuplicateRecipients bool        `json:"allow_duplicate_recipients,omitempty"`
}

// Parse reads bulk_settings. Mistakes go to errs, with the object's path. Now is what within_last_days counts from.
func Parse(errs *wire.Errors, o *wire.Object, now time.Time) Criteria {
	var c Criteria
	c.LeadIDs = sortedIDs(o.UUIDs("lead_ids", MaxLeadIDs))
	notEmpty(o, "lead_ids")
	if f := o.Child("filters"); f != nil {
		c.Filter = parseFilter(errs, f, now.UTC().Truncate(time.Microsecond))
	}
	if o.Has("search_keyword") {
		before := len(errs.List())
		c.Words = strings.Fields(message.Fold(o.String("search_keyword", MaxKeyword)))
		if len(c.Words) == 0 && len(errs.List()) == before {
			o.Fail(message.SlugTooShort, "must have at least one word", "search_keyword")
		}
	} else {
		o.String("search_keyword", 0)
	}
	c.Assignees = o.Strings("assignees", MaxAssignees, maxAssignee)
	notEmpty(o, "assignees")
	c.AllLeads = o.Bool("all_leads")
	switch m := o.String("match", 0); {
	case m == "" || strings.EqualFold(m, "all"):
	case strings.EqualFold(m, "any"):
		c.Any = true
	default:
		o.Fail(message.SlugEnum, "must be all or any", "match")
	}
	c.ExcludeLeadIDs = sortedIDs(o.UUIDs("exclude_lead_ids", MaxLeadIDs))
	for _, t := range o.Strings("exclude_tags", maxTags, maxTag) {
		c.ExcludeTags = append(c.ExcludeTags, message.Fold(t))
	}
	c.AllowDuplicateRecipients = o.Bool("allow_duplicate_recipients")
	if n := c.Comparisons(); n > MaxComparisons {
		o.Fail(message.SlugListLong, fmt.Sprintf("at most %d comparisons per lead, these criteria make %d: a value of contains, not_contains, "+
			"starts_with or ends_with counts one, a condition on a custom field one, a word of search_keyword one, three tags one; equals, in and not_in are free",
			MaxComparisons, n))
	}
	if !c.AllLeads && !slices.ContainsFunc([]string{"lead_ids", "filters", "search_keyword", "assignees"}, o.Has) {
		o.Fail(message.SlugMissing, "name whom to reach: lead_ids, filters, search_keyword, assignees, or all_leads: true")
	}
	o.Close()
	return c
}

// Comparisons returns how many comparisons with a lead's values the criteria make that no index and no hash table saves:
// one for every substring, prefix or suffix, one for every condition on a custom field, which is read out of a document
// first, and one for every few tags.
func (c *Criteria) Comparisons() int {
	n := len(c.Words) + tagsCost(len(c.ExcludeTags))
	if c.Filter != nil {
		n += c.Filter.comparisons()
	}
	return n
}

func tagsCost(tags int) int { return (tags + tagsCompared - 1) / tagsCompared }

func (n *Node) comparisons() int {
	if n.Cond != nil {
		return n.Cond.comparisons()
	}
	sum := 0
	for i := range n.Children {
		sum += n.Children[i].comparisons()
	}
	return sum
}

func (c *Condition) comparisons() int {
	switch {
	case c.Kind == Tags:
		return tagsCost(len(c.Values))
	case c.Op == Contains || c.Op == NotContains || c.Op == StartsWith || c.Op == EndsWith:
		return len(c.Values)
	case c.Kind == Custom:
		return 1
	}
	return 0
}

func sortedIDs(ids []uuid.UUID) []uuid.UUID {
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids)
}

// notEmpty refuses an empty array: it would be a criterion that nobody meets, which is hardly what is meant.
func notEmpty(o *wire.Object, name string) {
	if v, ok := o.Raw(name); ok {
		if l, isList := v.([]any); isList && len(l) == 0 {
			o.Fail(message.SlugListShort, "must have at least 1 element", name)
		}
	}
}

// Candidate is a lead that the criteria describe, with its address as it is stored.
type Candidate struct {
	LeadID  uuid.UUID
	Address string
}

// Page is one step of resolving criteria. Next is where to go on, and means nothing when Done.
type Page struct {
	Candidates []Candidate
	Next       string
	NotFound   int64 // ids of this step that are no lead's
	Done       bool
}

// ErrTooSlow says that the database gave up even a small page: resolving the criteria takes it too long.
var ErrTooSlow = errors.New("the criteria take the database too long")

// Resolver finds the leads that criteria describe, in the order of their ids. After is the Next of the page before,
// empty at first. The same cursor may be asked for again; a lead that changes between two pages may or may not be
// found, but never twice. ErrTooSlow says that the same page will hardly succeed later.
type Resolver interface {
	Resolve(ctx context.Context, c *Criteria, t message.ChannelType, after string, limit int) (Page, error)
}

// Usable normalises a lead's stored address of a type, or gives the reason why no message can go there. Region is the
// country whose national phone numbers are understood, "" for none.
func Usable(t message.ChannelType, stored, region string) (string, message.Reason) {
	stored = strings.TrimSpace(stored)
	if stored == "" {
		return "", message.NoRecipient
	}
	if t.Spec().Address.Phone && !message.IsE164(stored) {
		n, err := phonenumbers.Parse(stored, region)
		if err != nil {
			return "", message.InvalidRecipient
		}
		stored = phonenumbers.Format(n, phonenumbers.E164)
	}
	address, ok := message.ValidRecipient(t, stored)
	if !ok {
		return "", message.InvalidRecipient
	}
	return address, message.NoReason
}
