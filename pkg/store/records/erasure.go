package records

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/audience"
	"herald/pkg/event"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/search"
)

// eraseSQL erases messages in every state; its argument is the time. It empties address, content and metadata at once. A waiting
// message ends: SKIPPED, or UNKNOWN where an earlier attempt may have delivered it. An UNKNOWN message is not sent again. A claimed
// message keeps its state: its outcome finds the empty recipient and ends it (see settleStatement in the ledger package).
const eraseSQL = `
UPDATE messages SET recipient = '', address_hash = NULL, content = NULL, metadata = NULL,
    status = CASE WHEN status NOT IN ('SCHEDULED', 'PENDING', 'QUEUED') THEN status WHEN unknowns > 0 OR part > 0 THEN 'UNKNOWN' ELSE 'SKIPPED' END,
    reason = CASE WHEN status IN ('SCHEDULED', 'PENDING', 'QUEUED') THEN 'erased' ELSE reason END,
    next_attempt_at = CASE WHEN status = 'SENDING' THEN next_attempt_at END,
    updated_at = CASE WHEN status IN ('SCHEDULED', 'PENDING', 'QUEUED') OR (status = 'UNKNOWN' AND next_attempt_at IS NOT NULL) THEN ? ELSE updated_at END
WHERE `

// eraseMessages erases the messages that a condition selects, with the attachments of the singles among them. The attachments of a bulk
// stay, as its templates do: every recipient received them.
func eraseMessages(tx *gorm.DB, now any, where string, args ...any) error {
	files := "DELETE FROM message_files WHERE owner_id IN (SELECT id FROM messages WHERE bulk_id IS NULL AND (" + where + "))"
	if err := tx.Exec(files, args...).Error; err != nil { // first: the condition may name what the erasure empties
		return err
	}
	return tx.Exec(eraseSQL+where, append([]any{now}, args...)...).Error
}

// EraseLead implements lead.Eraser. It decodes nothing of the lead but its addresses, so that a damaged row can be erased.
func (s *LeadStore) EraseLead(ctx context.Context, id uuid.UUID, conditions ...func(updated time.Time) error) error {
	return s.db.Transact(ctx, "erase the lead", func(tx *gorm.DB) error { return s.eraseLead(tx, id, conditions) })
}

// eraseLead erases in one transaction. Its advisory lock waits for pages of plans that have read the lead and keeps later ones out
// until the commit.
func (s *LeadStore) eraseLead(tx *gorm.DB, id uuid.UUID, conditions []func(updated time.Time) error) error {
	lock := ""
	if s.db.IsPostgres() {
		lock = "FOR UPDATE"
		if err := tx.Exec("SELECT pg_advisory_xact_lock(?)", store.ErasureLock).Error; err != nil {
			return err
		}
	}
	lead, err := addressesOfLead(tx, id, lock)
	if err != nil {
		return err
	}
	for _, met := range conditions {
		if err := met(lead.UpdatedAt); err != nil {
			return err
		}
	}
	addresses, err := s.addressesOf(tx, lead)
	if err != nil {
		return err
	}
	// The lead goes first. Each statement after it sees what the locks on the lead and on the plans have waited for.
	if err := tx.Exec("DELETE FROM leads WHERE id = ?", id).Error; err != nil {
		return err
	}
	if err := eraseMessages(tx, s.db.Now(), "lead_id = ?", id); err != nil {
		return err
	}
	for _, a := range addresses {
		// Singles to the address that name no lead, or one that does not exist.
		if err := eraseMessages(tx, s.db.Now(), `address_hash IN ? AND channel_type = ? AND bulk_id IS NULL
    AND (lead_id IS NULL OR NOT EXISTS (SELECT 1 FROM leads WHERE leads.id = messages.lead_id))`, hashBytes(a.text), string(a.typ)); err != nil {
			return err
		}
		if err := tx.Exec("UPDATE suppressions SET address = '' WHERE type = ? AND address_hash IN ?", string(a.typ), hashBytes(a.text)).Error; err != nil {
			return err
		}
	}
	if err := s.eraseFromRequests(tx, lead, addresses); err != nil {
		return err
	}
	return s.db.Publish(tx, event.LeadErased{LeadID: id})
}

// addressesOfLead reads a lead of which only the address fields and the times are filled.
func addressesOfLead(tx *gorm.DB, id uuid.UUID, lock string) (*message.Lead, error) {
	columns := message.AddressFields()
	var times store.LeadScan
	lead := &times.Lead
	into := make([]any, 0, len(columns)+3)
	for _, column := range columns {
		into = append(into, lead.Text(column))
	}
	into = append(into, times.TimeTargets()...)
	query := "SELECT " + strings.Join(columns, ", ") + ", " + store.LeadTimeColumns("") + " FROM leads WHERE id = ? " + lock
	err := tx.Raw(query, id).Row().Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, message.Errorf(message.CodeNotFound, "lead %s not found", id)
	}
	if err != nil {
		return nil, err
	}
	return times.Next() // it has no documents to decode
}

// address is an address of a lead as messages have it.
type address struct {
	typ  message.ChannelType
	text string
}

// addressesOf returns a lead's addresses in every form that messages may have them in: a national phone number is another
// number in each region of a channel.
func (s *LeadStore) addressesOf(tx *gorm.DB, l *message.Lead) ([]address, error) {
	var regions []string
	if err := tx.Raw("SELECT DISTINCT region FROM channels").Scan(&regions).Error; err != nil {
		return nil, err
	}
	var out []address
	for _, t := range message.ChannelTypes {
		for _, region := range append([]string{""}, regions...) {
			text, reason := audience.Usable(t, l.Address(t), region)
			a := address{t, text}
			if reason == message.NoReason && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

// The request that a bulk keeps identifies a person only by an address.
const (
	erasedText = "[erased]"
	minAddress = 6 // bytes of an address that is replaced inside a text; a shorter one must be the whole text, or it hits other words
)

// keptContent are the fields of message_data that every recipient received. They are templates of the sender and stay.
var keptContent = []string{"subject", "content", "html_content", "sender", "sender_name", "image_url", "media_urls", "reply_to", "headers", "attachments"}

// eraseFromRequests replaces a lead's addresses in the criteria and the requests that bulks keep. LIKE preselects the bulks in one
// scan; the exact replacement is done here, on the decoded documents.
func (s *LeadStore) eraseFromRequests(tx *gorm.DB, l *message.Lead, addresses []address) error {
	var texts []string
	for _, t := range message.ChannelTypes {
		if a := strings.TrimSpace(l.Address(t)); a != "" {
			texts = append(texts, a)
		}
	}
	for _, a := range addresses {
		if !slices.Contains(texts, a.text) {
			texts = append(texts, a.text)
		}
	}
	if len(texts) == 0 {
		return nil
	}
	like := "CAST(criteria AS text) LIKE ? ESCAPE '\\' OR CAST(request AS text) LIKE ? ESCAPE '\\'"
	if s.db.IsPostgres() {
		like = strings.ReplaceAll(like, "LIKE", "ILIKE")
	}
	var where []string
	var args []any
	for _, text := range texts {
		pattern := "%" + search.EscapeLike(text) + "%"
		where, args = append(where, like), append(args, pattern, pattern)
	}
	var rows []store.BulkRow
	if err := tx.Select("id, name, criteria, request").Where(strings.Join(where, " OR "), args...).Find(&rows).Error; err != nil {
		return err
	}
	for i := range rows {
		criteria, err := withoutAddresses(rows[i].Criteria, texts)
		if err != nil {
			return err
		}
		request, err := withoutAddresses(rows[i].Request, texts)
		if err != nil {
			return err
		}
		if err := tx.Exec("UPDATE bulks SET name = ?, criteria = ?, request = ? WHERE id = ?", withoutTexts(rows[i].Name, texts), criteria, request, rows[i].ID).Error; err != nil {
			return err
		}
	}
	return nil
}

// withoutAddresses replaces addresses in the values of a document.
func withoutAddresses(d store.Document, texts []string) (store.Document, error) {
	dec := json.NewDecoder(bytes.NewReader(d))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return store.Encode(replaceAddresses(v, texts, false)), nil
}

// replaceAddresses replaces addresses in all strings of a value, in place. content marks the message_data of a request.
func replaceAddresses(v any, texts []string, content bool) any {
	switch v := v.(type) {
	case string:
		return withoutTexts(v, texts)
	case []any:
		for i := range v {
			v[i] = replaceAddresses(v[i], texts, false)
		}
	case map[string]any:
		for name, value := range v {
			if !content || !slices.Contains(keptContent, name) {
				v[name] = replaceAddresses(value, texts, name == "message_data")
			}
		}
	}
	return v
}

// withoutTexts replaces addresses in a text.
func withoutTexts(s string, texts []string) string {
	for _, text := range texts {
		s = replaceAddress(s, text)
	}
	return s
}

// replaceAddress replaces an address in a text, in any letter case.
func replaceAddress(s, text string) string {
	if len(text) < minAddress {
		if strings.EqualFold(strings.TrimSpace(s), text) {
			return erasedText
		}
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if i+len(text) <= len(s) && strings.EqualFold(s[i:i+len(text)], text) {
			b.WriteString(erasedText)
			i += len(text)
			continue
		}
		b.WriteByte(s[i])
		i++
	}
	return b.String()
}
