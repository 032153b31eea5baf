package openapi

import (
	"strings"

	"herald/pkg/message"
)

// expand replaces the placeholders of a field's documentation by what the registry of channel types says. field is the
// name of the field that the text describes; {types} stands for the types that have it.
func expand(doc, field string) string {
	if !strings.Contains(doc, "{") {
		return doc
	}
	return registryTexts.Replace(strings.ReplaceAll(doc, "{types}", message.TypeList(message.TypesWith(field), "and")))
}

var registryTexts = strings.NewReplacer(
	"{recipient_forms}", perType(", ", func(s *message.TypeSpec) string {
		if s.Address.Shown == "" {
			return ""
		}
		return s.Address.Shown + " is " + string(s.Type)
	}),
	"{implying_fields}", perType(", ", func(s *message.TypeSpec) string {
		if len(s.Content.Implies) == 0 {
			return ""
		}
		return strings.Join(s.Content.Implies, " or ") + ": " + string(s.Type)
	}),
	"{address_forms}", perType("; ", func(s *message.TypeSpec) string { return string(s.Type) + " " + s.Address.Form }),
	"{sender_forms}", perType("; ", func(s *message.TypeSpec) string { return string(s.Type) + " " + s.Sender.Form }),
	"{content_rules}", perType(" ", func(s *message.TypeSpec) string { return s.Content.Rules }),
	"{price_units}", perType(", ", func(s *message.TypeSpec) string { return s.Price.Unit }),
)

// perType joins what text says of each channel type, without the empty ones.
func perType(separator string, text func(s *message.TypeSpec) string) string {
	specs := message.TypeSpecs()
	var parts []string
	for i := range specs {
		if t := text(&specs[i]); t != "" {
			parts = append(parts, t)
		}
	}
	return strings.Join(parts, separator)
}
