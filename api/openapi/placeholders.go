package openapi

import (
	"strings"

	"herald/pkg/audience"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/provider/vendors"
)

// expand replaces the placeholders of a description by texts of the registries of channel types and providers, so that a new
// type or provider needs no change of the contract. {types} is replaced by the types that have field, the described field.
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
	"{fields}", strings.Join(audience.Fields(), ", "),
	"{template_fields}", strings.Join(message.BindingNames(), ", "),
	"{price_units}", perType(", ", func(s *message.TypeSpec) string { return s.Price.Unit }),
)

// perType joins the texts of all channel types, without empty ones.
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

// perProvider joins the texts of all providers, each after the name of its provider.
func perProvider(text func(p *channel.ProviderSpec) string) string {
	providers := vendors.All.Providers()
	parts := make([]string, 0, len(providers))
	for _, p := range providers {
		parts = append(parts, p.Name+" "+text(&p))
	}
	return strings.Join(parts, "; ")
}

// credentials lists the names of a provider's credentials.
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
