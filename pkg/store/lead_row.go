package store

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"gorm.io/gorm"

	"herald/pkg/audience"
	"herald/pkg/message"
)

// The columns of leads follow from the text fields of message.Lead: a new text field needs a migration and no change here.
var (
	// leadTexts are the columns of the text fields, in the order of message.Lead.TextFields.
	leadTexts = func() (names []string) {
		for _, f := range (&message.Lead{}).TextFields() {
			names = append(names, f.Name)
		}
		return names
	}()

	// LeadColumns are all columns, in the order of LeadRow.Values.
	LeadColumns = func() []string {
		columns := append([]string{"id"}, leadTexts...)
		for _, f := range audience.FoldedFields(&message.Lead{}) {
			columns = append(columns, f.Name+"_fold")
		}
		return append(columns, "search_text", "tags", "tags_fold", "custom_fields", "custom_text", "custom_number", "custom_date",
			"created_at", "updated_at", "last_contacted_at")
	}()

	// LeadUpdates are the columns that an update of a lead may change.
	LeadUpdates = slices.DeleteFunc(slices.Clone(LeadColumns), func(c string) bool { return c == "id" || c == "created_at" })
)

// LeadRow is a row of leads to be written.
type LeadRow struct {
	message.Lead
	folds                    []audience.Folded
	tags, tagsFold           Document
	custom, text, customSort Document
	customDate               Document
}

// RowOfLead returns a lead as a row.
func RowOfLead(l *message.Lead) LeadRow {
	r := LeadRow{Lead: *l, folds: audience.FoldedFields(l)}
	r.CreatedAt, r.UpdatedAt = Stamp(l.CreatedAt), Stamp(l.UpdatedAt)
	if l.LastContactedAt != nil {
		at := Stamp(*l.LastContactedAt)
		r.LastContactedAt = &at
	}
	if tags := dedupe(l.Tags); len(tags) > 0 {
		r.tags = Encode(tags)
	}
	if tags := audience.FoldedTags(l.Tags); len(tags) > 0 {
		r.tagsFold = Encode(tags)
	}
	if len(l.CustomFields) > 0 {
		text, number := audience.FoldedCustom(l.CustomFields)
		r.customDate = Encode(customKeys(audience.CustomDates(l.CustomFields)))
		r.custom, r.text, r.customSort = Encode(l.CustomFields), Encode(customKeys(text)), Encode(customKeys(number))
	}
	return r
}

// RowsOfLeads returns leads as rows.
func RowsOfLeads(leads []message.Lead) []LeadRow {
	rows := make([]LeadRow, len(leads))
	for i := range leads {
		rows[i] = RowOfLead(&leads[i])
	}
	return rows
}

// Values returns the values of LeadColumns.
func (r *LeadRow) Values() []any {
	v := make([]any, 0, len(LeadColumns))
	v = append(v, r.ID)
	for _, f := range r.TextFields() {
		v = append(v, *f.Value)
	}
	for _, f := range r.folds {
		v = append(v, f.Value)
	}
	return append(v, audience.SearchText(r.folds), r.tags, r.tagsFold, r.custom, r.text, r.customSort, r.customDate, r.CreatedAt, r.UpdatedAt, r.LastContactedAt)
}

// Columns returns the values of some of LeadColumns, by their names.
func (r *LeadRow) Columns(names ...string) map[string]any {
	values := r.Values()
	some := make(map[string]any, len(names))
	for _, name := range names {
		some[name] = values[slices.Index(LeadColumns, name)]
	}
	return some
}

// CopyValues returns Values for COPY in PostgreSQL's binary format.
func (r *LeadRow) CopyValues() []any {
	v := r.Values()
	for i := range v {
		if d, ok := v[i].(Document); ok {
			v[i] = d.orNull()
		}
	}
	return v
}

// MarshalJSON returns the row as PostgreSQL's json_populate_recordset reads it.
func (r *LeadRow) MarshalJSON() ([]byte, error) {
	b := bytes.NewBufferString("{")
	for i, v := range r.Values() {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		b.WriteString(`"` + LeadColumns[i] + `":`)
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func dedupe(list []string) []string {
	seen := make(map[string]bool, len(list))
	out := list[:0:0]
	for _, v := range list {
		if !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	return out
}

// CustomKey returns the key of a custom field in custom_text, custom_number and custom_date. It is hexadecimal, because the databases differ in
// how they read quotes, dots and backslashes in a JSON path.
func CustomKey(name string) string { return "k" + hex.EncodeToString([]byte(name)) }

func customKeys[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	for k, v := range m {
		out[CustomKey(k)] = v
	}
	return out
}

// LeadScan reads leads from the rows of a query, one row after the other.
type LeadScan struct {
	Lead         message.Lead // without what follows
	tags, custom []byte
	created      moment
	updated      moment
	contacted    moment
}

// LeadScanColumns returns the columns for LeadScan.Targets, each with a prefix. text formats the name of a text column: all of
// them are NOT NULL, but a LEFT JOIN may return NULL.
func LeadScanColumns(table, text string) string {
	columns := make([]string, 0, 3+len(leadTexts))
	columns = append(columns, table+"id", table+"tags", table+"custom_fields")
	for _, c := range leadTexts {
		columns = append(columns, fmt.Sprintf(text, c))
	}
	return strings.Join(columns, ", ")
}

// Targets returns where a row of LeadScanColumns is scanned to.
func (r *LeadScan) Targets() []any {
	texts := r.Lead.TextFields()
	to := make([]any, 0, 3+len(texts))
	to = append(to, &r.Lead.ID, &r.tags, &r.custom)
	for _, f := range texts {
		to = append(to, f.Value)
	}
	return to
}

// LeadTimeColumns returns the columns for LeadScan.TimeTargets, each with a prefix.
func LeadTimeColumns(table string) string {
	return table + "created_at, " + table + "updated_at, " + table + "last_contacted_at"
}

// TimeTargets returns where the times of a row are scanned to. A lead that is read without them has zero times.
func (r *LeadScan) TimeTargets() []any { return []any{&r.created, &r.updated, &r.contacted} }

// WholeLeadColumns are the columns of a lead with its times.
var WholeLeadColumns = LeadScanColumns("", "%s") + ", " + LeadTimeColumns("")

// WholeTargets returns where a row of WholeLeadColumns is scanned to.
func (r *LeadScan) WholeTargets() []any { return append(r.Targets(), r.TimeTargets()...) }

// Next returns the lead of the row that was scanned last. If its tags or custom fields cannot be decoded, the lead lacks them,
// and the error says why.
func (r *LeadScan) Next() (*message.Lead, error) {
	l := r.Lead
	l.CreatedAt, l.UpdatedAt, l.LastContactedAt = r.created.Time, r.updated.Time, r.contacted.pointer()
	terr, cerr := Document(r.tags).Decode(&l.Tags), Document(r.custom).decodeNumbers(&l.CustomFields)
	if terr != nil {
		l.Tags = nil
	}
	if cerr != nil {
		l.CustomFields = nil
	}
	return &l, errors.Join(terr, cerr)
}

// moment is a time of a lead, which callers choose freely. A time outside message.TimeBound, written by an earlier version,
// reads as the nearest time inside it: JSON has no form for such a time, and the SQLite driver cannot read what it wrote.
type moment struct {
	time.Time
	valid bool // it is not NULL
}

// ScanTimestamptz implements pgtype.TimestamptzScanner, which needs no allocation, unlike Scan.
func (m *moment) ScanTimestamptz(v pgtype.Timestamptz) error {
	switch m.valid = v.Valid; {
	case v.InfinityModifier == pgtype.Infinity:
		v.Time = farFuture
	case v.InfinityModifier == pgtype.NegativeInfinity:
		v.Time = farPast
	case !v.Valid:
		m.Time = time.Time{}
		return nil
	}
	m.Time = message.ClampTime(v.Time)
	return nil
}

// Scan implements sql.Scanner.
func (m *moment) Scan(v any) error {
	var text string
	m.valid = v != nil
	switch v := v.(type) {
	case nil:
		m.Time = time.Time{}
		return nil
	case time.Time:
		m.Time = message.ClampTime(v)
		return nil
	case string:
		text = v
	case []byte:
		text = string(v)
	default:
		return fmt.Errorf("a time column holds %T", v)
	}
	if m.Time = message.ClampTime(farPast); !strings.HasPrefix(text, "-") {
		m.Time = message.ClampTime(farFuture)
	}
	return nil
}

var (
	farPast   = time.Date(-1, time.January, 1, 0, 0, 0, 0, time.UTC)
	farFuture = time.Date(10_000, time.January, 1, 0, 0, 0, 0, time.UTC)
)

// pointer returns the time, nil for NULL. The next row does not change it.
func (m *moment) pointer() *time.Time {
	if !m.valid {
		return nil
	}
	t := m.Time
	return &t
}

// EachLead calls each with the leads of a query on GORM, in its order, and with the error of Next.
func EachLead(query *gorm.DB, each func(l *message.Lead, undecodable error)) error {
	rows, err := query.Table("leads").Select(WholeLeadColumns).Rows()
	if err != nil {
		return err
	}
	defer rows.Close()
	var r LeadScan
	to := r.WholeTargets()
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		each(r.Next())
	}
	return rows.Err()
}

// ReadLeads returns the leads of a query on GORM, in its order. A value that cannot be decoded reads as absent, because a
// page, an import or an erasure must not fail for it. Only a SQLite file can hold such a value.
func ReadLeads(query *gorm.DB) ([]message.Lead, error) {
	var leads []message.Lead
	err := EachLead(query, func(l *message.Lead, _ error) { leads = append(leads, *l) })
	return leads, err
}
