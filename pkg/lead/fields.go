package lead

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/wire"
)

// Limits of a lead's fields.
const (
	MaxText        = 1_000 // characters of a text field
	MaxTags        = 200
	MaxTag         = 200      // characters
	MaxCustomBytes = 64 << 10 // of the JSON of all custom fields
)

// field declares how input sets one field of a lead. Parse, Patch, the CSV reader and the merge of an import iterate over
// fields; none of them names a field itself.
type field struct {
	name string // JSON member and CSV column

	// parse reads the field from a JSON object and adds mistakes to the object's errors. nil: JSON must not name it.
	parse func(o *wire.Object, l *message.Lead)
	// parseCell reads a cell of a CSV file that is not empty. A *rowError rejects the row; a *cellError loses the cell only.
	// nil: such a column is a custom field of this name.
	parseCell func(r *cellReader, l *message.Lead, cell string) error
	// patchable fields can be changed by Patch.
	patchable bool
	// patch changes the field as a JSON object says. nil: Patch sets what parse reads.
	patch func(o *wire.Object, l *message.Lead)
	// isSet reports whether a row has a value. A row in which all these fields are unset is rejected as empty.
	// nil: the field alone does not make a lead.
	isSet func(l *message.Lead) bool
	// merge adds the value of an imported row to a stored lead and reports whether it changed the lead. It must not change
	// what the row shares with other leads, because a batch may be merged again. nil: an import does not change the field of
	// a stored lead.
	merge func(stored, row *message.Lead) (changed bool, err error)
}

// fields declares every field of a lead, in the order in which mistakes are reported.
var fields = declareFields()

func declareFields() []field {
	list := []field{{
		name:      "id",
		parse:     func(o *wire.Object, l *message.Lead) { l.ID = o.UUID("id") },
		parseCell: parseIDCell,
		isSet:     func(l *message.Lead) bool { return l.ID != uuid.Nil },
	}}
	for _, text := range message.LeadTexts {
		list = append(list, textField(text))
	}
	return append(list, field{
		name: "tags", patchable: true,
		parse:     func(o *wire.Object, l *message.Lead) { l.Tags = parseTags(o, "tags") },
		parseCell: parseTagsCell,
		isSet:     func(l *message.Lead) bool { return len(l.Tags) > 0 },
		merge:     mergeTags,
	}, field{
		name: "custom_fields", patchable: true,
		parse: func(o *wire.Object, l *message.Lead) { l.CustomFields = parseCustomFields(o) },
		patch: patchCustomFields,
		isSet: func(l *message.Lead) bool { return len(l.CustomFields) > 0 },
		merge: mergeCustomFields,
	}, field{
		name: "created_at", // of a new lead; that of a stored lead never changes
		parse: func(o *wire.Object, l *message.Lead) {
			if t := o.Time("created_at"); t != nil {
				l.CreatedAt = *t
			}
		},
		parseCell: func(r *cellReader, l *message.Lead, cell string) (err error) {
			l.CreatedAt, err = r.time(cell)
			return err
		},
	}, field{
		name:      "updated_at", // accepted so that a lead can be written as it was read; every write sets it
		parse:     func(o *wire.Object, _ *message.Lead) { o.Time("updated_at") },
		parseCell: ignoreCell,
	}, field{
		name: "full_name", // accepted in CSV only: exports of other programs contain it beside first_name and last_name, or alone
		parseCell: func(r *cellReader, _ *message.Lead, cell string) error {
			r.fullName = cell
			return nil
		},
	}, field{
		name: "last_contacted_at", patchable: true,
		parse: func(o *wire.Object, l *message.Lead) { l.LastContactedAt = o.Time("last_contacted_at") },
		parseCell: func(r *cellReader, l *message.Lead, cell string) error {
			t, err := r.time(cell)
			if err == nil {
				l.LastContactedAt = &t
			}
			return err
		},
		merge: func(stored, row *message.Lead) (bool, error) {
			if row.LastContactedAt == nil || stored.LastContactedAt != nil && stored.LastContactedAt.Equal(*row.LastContactedAt) {
				return false, nil
			}
			stored.LastContactedAt = row.LastContactedAt
			return true, nil
		},
	})
}

// textField declares a plain text field. An import keeps the stored value where the row has none.
func textField(text message.LeadText) field {
	return field{
		name: text.Name, patchable: true,
		parse: func(o *wire.Object, l *message.Lead) { *text.Of(l) = parseText(o, text.Name) },
		parseCell: func(r *cellReader, l *message.Lead, cell string) error {
			return r.text(text.Name, cell, text.Of(l))
		},
		isSet: func(l *message.Lead) bool { return *text.Of(l) != "" },
		merge: func(stored, row *message.Lead) (bool, error) {
			v := *text.Of(row)
			if v == "" || v == *text.Of(stored) {
				return false, nil
			}
			*text.Of(stored) = v
			return true, nil
		},
	}
}

// cellField returns the field that a CSV column sets, nil when the column is a custom field.
func cellField(column string) *field {
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == column && f.parseCell != nil })
	if i < 0 {
		return nil
	}
	return &fields[i]
}

// Parse reads a lead from a JSON object. Mistakes, unknown members among them, go to the object's errors.
func Parse(o *wire.Object) *message.Lead {
	l := &message.Lead{}
	for _, f := range fields {
		if f.parse != nil {
			f.parse(o, l)
		}
	}
	o.Close()
	return l
}

// Patch changes the fields of a lead that a JSON object names; null empties a field. custom_fields are merged (RFC 7396), add_tags
// and remove_tags change some of the tags. Mistakes go to the object's errors.
func Patch(o *wire.Object, l *message.Lead) {
	for _, f := range fields {
		switch {
		case !f.patchable || !o.Given(f.name):
		case f.patch != nil:
			f.patch(o, l)
		default:
			f.parse(o, l)
		}
	}
	patchTags(o, l)
	o.Close()
}

// patchTags removes and adds tags. Tags are the same if filters cannot tell them apart.
func patchTags(o *wire.Object, l *message.Lead) {
	for _, name := range []string{"add_tags", "remove_tags"} {
		if o.Has(name) && o.Given("tags") {
			o.Fail(message.SlugExtra, "must not be given together with tags, which are all tags", name)
		}
	}
	add, remove := parseTags(o, "add_tags"), parseTags(o, "remove_tags")
	for i, t := range remove {
		if hasTag(add, t) {
			o.Fail(message.SlugValue, "is among add_tags too", "remove_tags", i)
		}
	}
	kept := slices.DeleteFunc(slices.Clone(l.Tags), func(t string) bool { return hasTag(remove, t) })
	for _, t := range add {
		if !hasTag(kept, t) {
			kept = append(kept, t)
		}
	}
	if len(add) > 0 && len(kept) > max(MaxTags, len(l.Tags)) {
		o.Fail(message.SlugListLong, fmt.Sprintf("must be at most %d together with those of the lead", MaxTags), "add_tags")
	}
	l.Tags = kept
}

func hasTag(tags []string, tag string) bool {
	return slices.ContainsFunc(tags, func(t string) bool { return foldTag(t) == foldTag(tag) })
}

func foldTag(t string) string { return message.Fold(strings.TrimSpace(t)) }

// patchCustomFields merges custom fields into those of the lead. A name that is not valid, stored by an earlier version, can be
// removed.
func patchCustomFields(o *wire.Object, l *message.Lead) {
	m := o.Free("custom_fields", MaxCustomBytes)
	if m == nil {
		l.CustomFields = nil
		return
	}
	checkNames(o, m, func(v any) bool { return v != nil })
	merged := mergePatch(l.CustomFields, m)
	if !fitsCustom(merged) {
		o.Fail(message.SlugTooLong, fmt.Sprintf("must have at most %d bytes together with those of the lead", MaxCustomBytes), "custom_fields")
	}
	l.CustomFields = merged
}

// mergePatch returns an object with a patch applied (RFC 7396). It changes neither.
func mergePatch(object, patch map[string]any) map[string]any {
	out := make(map[string]any, len(object)+len(patch))
	maps.Copy(out, object)
	for name, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, name)
		case map[string]any:
			old, _ := out[name].(map[string]any)
			out[name] = mergePatch(old, v)
		default:
			out[name] = v
		}
	}
	return out
}

// indexedBound describes the bound of text fields that have an index, which PostgreSQL bounds in bytes.
var indexedBound = fmt.Sprintf("must have at most %d bytes in UTF-8, also in lower case", message.MaxIndexed)

func parseText(o *wire.Object, name string) string {
	v := o.String(name, MaxText)
	if !message.FitsIndex(name, v) {
		o.Fail(message.SlugTooLong, indexedBound, name)
		return ""
	}
	return v
}

// parseTags reads tags without the white space around them, as an import does.
func parseTags(o *wire.Object, name string) []string {
	tags := o.Strings(name, MaxTags, MaxTag)
	for i, t := range tags {
		if tags[i] = strings.TrimSpace(t); tags[i] == "" {
			o.Fail(message.SlugTooShort, "must not be empty", name, i)
		}
	}
	return tags
}

func parseCustomFields(o *wire.Object) map[string]any {
	m := o.Free("custom_fields", MaxCustomBytes)
	checkNames(o, m, func(any) bool { return true })
	return m
}

// checkNames adds a mistake for each custom field that has no valid name and is to be written.
func checkNames(o *wire.Object, m map[string]any, written func(v any) bool) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if written(m[name]) && !message.ValidFieldName(name) {
			o.Fail(message.SlugValue, message.FieldNameBound, "custom_fields", name)
		}
	}
}

// mergeTags adds the tags of the row that the lead does not have. A lead that has more than MaxTags, stored by an earlier
// version, keeps them and gets no further ones.
func mergeTags(stored, row *message.Lead) (bool, error) {
	tags := slices.Clone(stored.Tags)
	for _, t := range row.Tags {
		if !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	if len(tags) > max(MaxTags, len(stored.Tags)) {
		return false, badRow("tags: must be at most %d together with those of the lead", MaxTags)
	}
	changed := len(tags) > len(stored.Tags)
	stored.Tags = tags
	return changed, nil
}

// mergeCustomFields sets the custom fields of the row and keeps the others.
func mergeCustomFields(stored, row *message.Lead) (bool, error) {
	changed := false
	for name, v := range row.CustomFields {
		old, ok := stored.CustomFields[name]
		changed = changed || !ok || !sameValue(old, v)
	}
	if !changed {
		return false, nil
	}
	custom := make(map[string]any, len(stored.CustomFields)+len(row.CustomFields))
	maps.Copy(custom, stored.CustomFields)
	maps.Copy(custom, row.CustomFields)
	if !fitsCustom(custom) {
		return false, badRow("custom fields: must have at most %d bytes together with those of the lead", MaxCustomBytes)
	}
	stored.CustomFields = custom
	return true, nil
}

// sameValue reports whether two values of a custom field are the same JSON. Strings, which a CSV file has, are compared
// directly.
func sameValue(a, b any) bool {
	if x, ok := a.(string); ok {
		y, ok := b.(string)
		return ok && x == y
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func fitsCustom(m map[string]any) bool {
	return len(m) == 0 || wire.Fits(m, MaxCustomBytes)
}

// validateRow rejects rows that are too large, and rows without any value, which could never be found again.
func validateRow(l *message.Lead) error {
	if len(l.Tags) > MaxTags || slices.ContainsFunc(l.Tags, func(t string) bool { return utf8.RuneCountInString(t) > MaxTag }) {
		return badRow("tags: must be at most %d, each of at most %d characters", MaxTags, MaxTag)
	}
	if !fitsCustom(l.CustomFields) {
		return badRow("custom fields: must have at most %d bytes", MaxCustomBytes)
	}
	if !slices.ContainsFunc(fields, func(f field) bool { return f.isSet != nil && f.isSet(l) }) {
		return badRow("the row is empty")
	}
	return nil
}
