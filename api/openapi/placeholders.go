package openapi

import (
	"strings"

	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/provider/vendors"
)

// expand replaces the placeholders of a field's documentation by what the registries of channel types and providers say. field is the
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
	"{providers}", perType("; ", func(s *message.TypeSpec) string {
		return string(s.Type) + " " + strings.Join(vendors.All.Providers().For(s.Type), ", ")
	}),
	"{credentials}", perProvider(credentials),
	"{policies}", perProvider(func(p *channel.ProviderSpec) string { return string(p.OnUnknown) }),
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

// perProvider joins what text says of each provider, after the provider's name.
func perProvider(text func(p *channel.ProviderSpec) string) string {
	providers := vendors.All.Providers()
	parts := make([]string, 0, len(providers))
	for _, p := range providers {
		parts = append(parts, p.Name+" "+text(&p))
	}
	return strings.Join(parts, "; ")
}

// credentials names the credentials of a provider.
func credentials(p *channel.ProviderSpec) string {
	var names []string
	for _, c := range p.Credentials {
		if name := c.Name; c.Required {
			names = append(names, name)
		} else {
			names = append(names, name+" (optional)")
		}
	}
	return strings.Join(names, ", ")
}
