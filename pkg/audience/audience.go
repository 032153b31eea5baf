// Package audience says who gets a bulk: the criteria of a request, parsed and validated, the port that resolves them
// to leads page by page, and what makes a lead's stored address usable. It knows no SQL.
package audience

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/nyaruka/phonenumbers"

	"herald/pkg/message"
	"herald/pkg/wire"
)

// MaxLeadIDs is how many leads one request may name.
const MaxLeadIDs = 100_000

// Criteria describe an audience.
type Criteria struct {
	LeadIDs                  []uuid.UUID // sorted, each once
	AllowDuplicateRecipients bool
}

// Parse reads bulk_settings. Mistakes go to the object's errors.
func Parse(o *wire.Object) Criteria {
	var c Criteria
	c.LeadIDs = o.UUIDs("lead_ids", MaxLeadIDs)
	if list, ok := o.Raw("lead_ids"); ok {
		if l, isList := list.([]any); isList && len(l) == 0 {
			o.Fail(message.SlugListShort, "must have at least 1 element", "lead_ids")
		}
	}
	slices.SortFunc(c.LeadIDs, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	c.LeadIDs = slices.Compact(c.LeadIDs)
	c.AllowDuplicateRecipients = o.Bool("allow_duplicate_recipients")
	o.Unsupported("filters", "search_keyword", "assignees", "exclude_lead_ids", "exclude_tags", "match", "all_leads")
	if !o.Has("lead_ids") && !hasAny(o, "filters", "search_keyword", "assignees", "all_leads") {
		o.Fail(message.SlugMissing, "name whom to reach: lead_ids, filters, search_keyword, assignees, or all_leads: true")
	}
	o.Close()
	return c
}

func hasAny(o *wire.Object, names ...string) bool {
	return slices.ContainsFunc(names, o.Has)
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

// Resolver finds the leads that criteria describe, in the order of their ids. After is the Next of the page before,
// empty at first. The same cursor may be asked for again; a lead that changes between two pages may or may not be
// found, but never twice.
type Resolver interface {
	Resolve(ctx context.Context, c *Criteria, t message.Type, after string, limit int) (Page, error)
}

// Usable normalises a lead's stored address of a type, or gives the reason why no message can go there. Region is the
// country whose national phone numbers are understood, "" for none.
func Usable(t message.Type, stored, region string) (string, message.Reason) {
	stored = strings.TrimSpace(stored)
	if stored == "" {
		return "", message.NoRecipient
	}
	if t == message.SMS && !message.IsE164(stored) {
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
