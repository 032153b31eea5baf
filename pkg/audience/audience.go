// Package audience selects the leads of a bulk: it parses and validates the criteria of a request, evaluates them in memory,
// declares the port that resolves them to leads page by page (Resolver), and normalises a lead's stored address (Usable). It
// knows no SQL; pkg/store/search compiles the same criteria, and a property test compares both.
//
// A filter compares folded values. A missing value equals an empty string: is_empty holds for it, the operators that need a value
// (equals, contains, starts_with, ends_with, in, and all operators of numbers and times) do not, and the negated operators
// (not_equals, not_contains, not_in) do. Comparisons of numbers do not hold for a custom field that is not a number, nor
// those of dates for one that is not a date. A custom field that is null is missing.
package audience

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"herald/pkg/dates"
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
	maxZone      = 100 // characters

	// MaxComparisons bounds the cost of resolving criteria for one lead. One comparison takes about 150 ns in PostgreSQL, so the
	// most expensive criteria take 3 s for the 20,000 leads that a page scans.
	MaxComparisons = 1_000
	tagsCompared   = 3 // tags that cost as much as one comparison
)

// Criteria describe an audience. A lead belongs to it when it meets all given criteria (with Any: at least one) and is not
// excluded.
type Criteria struct {
	LeadIDs                  []uuid.UUID `json:"lead_ids,omitempty"` // sorted, without duplicates
	Filter                   *Node       `json:"filter,omitempty"`
	Words                    []string    `json:"words,omitempty"` // folded words of search_keyword
	Assignees                []string    `json:"assignees,omitempty"`
	AllLeads                 bool        `json:"all_leads,omitempty"`
	Any                      bool        `json:"any,omitempty"`
	ExcludeLeadIDs           []uuid.UUID `json:"exclude_lead_ids,omitempty"`
	ExcludeTags              []string    `json:"exclude_tags,omitempty"` // folded
	AllowDuplicateRecipients bool        `json:"allow_duplicate_recipients,omitempty"`
}

// Parse reads bulk_settings and adds its mistakes to errs, each with its path. within_last_days and within_next_days count from
// now. Conditions on times and dates become moments and clock times of the timezone in the request, so criteria keep their
// meaning wherever and whenever they are resolved.
func Parse(errs *wire.Errors, o *wire.Object, now time.Time) Criteria {
	var c Criteria
	zone := zoneOf(o)
	c.LeadIDs = sortedIDs(o.UUIDs("lead_ids", MaxLeadIDs))
	notEmpty(o, "lead_ids")
	if f := o.Child("filters"); f != nil {
		c.Filter = parseFilter(errs, f, now.UTC().Truncate(time.Microsecond), zone)
	}
	if o.Has("search_keyword") {
		before := len(errs.List())
		c.Words = Words(o.String("search_keyword", MaxKeyword))
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
		if t = foldTag(t); t != "" { // no lead has a blank tag
			c.ExcludeTags = append(c.ExcludeTags, t)
		}
	}
	c.AllowDuplicateRecipients = o.Bool("allow_duplicate_recipients")
	if n := c.Comparisons(); n > MaxComparisons {
		o.Fail(message.SlugListLong, fmt.Sprintf("at most %d comparisons per lead, these criteria make %d: a value of contains, not_contains, "+
			"starts_with or ends_with counts one, a condition on a custom field one, a word of search_keyword one, three tags one; equals, in and not_in are free",
			MaxComparisons, n))
	}
	allLeads, _ := o.Raw("all_leads")
	if none := allLeads == nil || allLeads == false; none && !slices.ContainsFunc([]string{"lead_ids", "filters", "search_keyword", "assignees"}, o.Has) {
		o.Fail(message.SlugMissing, "at least one criterion is required: lead_ids, filters, search_keyword, assignees, or all_leads: true")
	}
	o.Close()
	return c
}

// zoneOf reads the time zone of a request, UTC if it names none or none that exists.
func zoneOf(o *wire.Object) *time.Location {
	zone, err := dates.Zone(o.String("timezone", maxZone))
	if err != nil {
		o.Fail(message.SlugValue, err.Error(), "timezone")
		return time.UTC
	}
	return zone
}

// Comparisons returns how many comparisons the criteria make for each lead that neither an index nor a hash table saves: one for
// every substring, prefix or suffix, one for every condition on a custom field (the database reads it out of a JSON document), and
// one for every tagsCompared tags.
func (c *Criteria) Comparisons() int {
	n := tagsCost(len(c.ExcludeTags))
	for _, word := range c.Words {
		n += len(WordForms(word))
		if _, ok := WordDigits(word); ok {
			n++
		}
	}
	if c.Filter != nil {
		n += c.Filter.comparisons()
	}
	return n
}

// tagsCost rounds up: one tag costs a comparison.
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

// notEmpty rejects an empty array. No lead would meet such a criterion, which is most likely a mistake of the caller.
func notEmpty(o *wire.Object, name string) {
	if v, ok := o.Raw(name); ok {
		if l, isList := v.([]any); isList && len(l) == 0 {
			o.Fail(message.SlugListShort, "must have at least 1 element", name)
		}
	}
}

// Words splits a keyword into its folded words. Quotes, commas and parentheses separate words like white space: people search
// for "Smith, John" and for (415) 555-0101.
func Words(keyword string) []string {
	return strings.FieldsFunc(message.Fold(keyword), func(r rune) bool {
		return unicode.IsSpace(r) || strings.ContainsRune(",;\"“”„«»()", r)
	})
}

// Candidate is a lead that meets the criteria, with its stored address.
type Candidate struct {
	LeadID  uuid.UUID
	Address string
}

// Page is one page of an audience. Next is the cursor of the next page; it is undefined when Done.
type Page struct {
	Candidates []Candidate
	Next       string
	NotFound   int64 // lead ids of this page without a lead
	Done       bool
}

// ErrTooSlow says that the database exceeded its time limit even for a small page.
var ErrTooSlow = errors.New("resolve audience: time limit exceeded")

// Resolver finds the leads that meet criteria, in the order of their ids (keyset pagination). after is Page.Next of the previous
// page, "" for the first. A page may be resolved again. A lead that changes between two pages may be missed but is never returned
// twice. Resolve returns ErrTooSlow when a retry of the same page is likely to fail too.
type Resolver interface {
	Resolve(ctx context.Context, c *Criteria, t message.ChannelType, after string, limit int) (Page, error)
}

// Usable normalises a lead's stored address of a channel type. It returns a reason when no message can be sent to the address.
// region is the country of national phone numbers (ISO 3166-1 alpha-2); with "" they are invalid.
func Usable(t message.ChannelType, stored, region string) (string, message.Reason) {
	stored = strings.TrimSpace(stored)
	if stored == "" {
		return "", message.NoRecipient
	}
	address, ok := message.ValidRecipient(t, stored)
	if !ok && t.Spec().Address.Phone {
		address, ok = message.NationalPhone(stored, region)
	}
	if !ok {
		return "", message.InvalidRecipient
	}
	return address, message.NoReason
}
