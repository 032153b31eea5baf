package audience

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"herald/pkg/message"
)

// Folded is a text field of a lead with its folded value.
type Folded struct {
	Name  string
	Value string
}

// FoldedFields returns the text fields of a filter in a fixed order.
func FoldedFields(l *message.Lead) []Folded {
	list := l.TextFields()
	out := make([]Folded, 0, len(list)+1)
	for _, f := range list {
		out = append(out, Folded{f.Name, message.FoldField(f.Name, *f.Value)})
	}
	return append(out, Folded{"full_name", message.Fold(strings.TrimSpace(l.FirstName + " " + l.LastName))})
}

// Searched lists the fields of SearchText, in the order of its lines. The text is stored with the lead, so a change of the order
// needs a migration.
var Searched = []string{"first_name", "last_name", "full_name", "email", "company", "phone"}

// SearchText returns the text in which the words of search_keyword must occur: one line for each Searched field, in base letters
// (message.BaseLetters). A word has no white space, so it cannot match across two fields.
func SearchText(fields []Folded) string {
	lines := make([]string, len(Searched))
	for _, f := range fields {
		if i := slices.Index(Searched, f.Name); i >= 0 {
			lines[i] = f.Value
		}
	}
	return message.BaseLetters(strings.Join(lines, "\n"))
}

// WordForms returns the texts of which one must be part of a lead's SearchText for a folded word to occur in it: the word in base
// letters, and the word itself for the leads that an earlier version stored and no backfill has reached.
func WordForms(word string) []string {
	if base := message.BaseLetters(word); base != word && base != "" {
		return []string{base, word}
	}
	return []string{word}
}

// WordDigits returns the digits of a word that may be part of a phone number in another spelling. A lead has the word if its
// phone contains the digits, whatever WordForms says. It returns false for other words, and where the digits are the word.
func WordDigits(word string) (string, bool) {
	digits, ok := message.PhonePart(word)
	digits = strings.TrimPrefix(digits, "+")
	return digits, ok && digits != word
}

// FoldedTags returns the tags that filters compare, each once: folded, without surrounding white space.
func FoldedTags(tags []string) []string {
	var out []string
	for _, t := range tags {
		if t = foldTag(t); t != "" && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

func foldTag(t string) string { return message.Fold(strings.TrimSpace(t)) }

// FoldedCustom returns the values that conditions on custom fields compare: the folded text of each field, and the sort key
// (message.Decimal) of each number and of each string that reads as a number.
func FoldedCustom(custom map[string]any) (text, number map[string]string) {
	text, number = make(map[string]string, len(custom)), map[string]string{}
	for k, v := range custom {
		if s := message.Fold(customText(v)); s != "" {
			text[k] = s
		}
		if d, ok := customNumber(v); ok {
			number[k] = d.SortKey()
		}
	}
	return text, number
}

// customText converts a custom field's value to text: a string unchanged, a number as a plain decimal with all digits, a boolean
// as true or false, any other value as JSON. null is missing and becomes "".
func customText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case float64, int, json.Number:
		if d, ok := customNumber(v); ok {
			return d.String()
		}
		return fmt.Sprint(v)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// decimal excludes exponents, hexadecimal numbers and infinities, which strconv accepts.
var decimal = regexp.MustCompile(`^[+-]?[0-9]{1,40}(\.[0-9]{1,40})?$`)

// customNumber returns a custom field's value as a number, and whether it is one.
func customNumber(v any) (message.Decimal, bool) {
	switch v := v.(type) {
	case float64:
		return message.ParseDecimal(strconv.FormatFloat(v, 'f', -1, 64))
	case int:
		return message.ParseDecimal(strconv.Itoa(v))
	case json.Number:
		return message.ParseDecimal(v.String())
	case string:
		if v = strings.TrimSpace(v); decimal.MatchString(v) {
			return message.ParseDecimal(strings.TrimPrefix(v, "+"))
		}
	}
	return message.Decimal{}, false
}
