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

// Folded is a lead's text field as it is compared.
type Folded struct {
	Name  string
	Value string
}

// FoldedFields returns the text fields that filters compare, folded, in a fixed order.
func FoldedFields(l *message.Lead) []Folded {
	list := l.TextFields()
	out := make([]Folded, 0, len(list)+1)
	for _, f := range list {
		out = append(out, Folded{f.Name, message.Fold(*f.Value)})
	}
	return append(out, Folded{"full_name", message.Fold(strings.TrimSpace(l.FirstName + " " + l.LastName))})
}

// Searched are the text fields that SearchText is made of.
var Searched = []string{"first_name", "last_name", "full_name", "email", "company", "phone"}

// SearchText is the text in which a search keyword's words must occur: names, email, company and phone of a lead's
// FoldedFields, a line each. A word has no white space, so none can span two of them.
func SearchText(fields []Folded) string {
	lines := make([]string, len(Searched))
	for _, f := range fields {
		if i := slices.Index(Searched, f.Name); i >= 0 {
			lines[i] = f.Value
		}
	}
	return strings.Join(lines, "\n")
}

// FoldedCustom returns a lead's custom fields as they are compared: each as folded text, and those that are numbers,
// or strings that read as one, as their sort keys (message.Decimal) too.
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

// customText is a custom field's value as text: strings as they are, numbers in plain decimals with all their digits,
// booleans as true and false, everything else as JSON. null is missing.
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

var decimal = regexp.MustCompile(`^[+-]?[0-9]{1,40}(\.[0-9]{1,40})?$`)

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
