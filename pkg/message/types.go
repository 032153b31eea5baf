package message

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ChannelType is a kind of channel. The wire calls it channel_type, sender_type or type.
type ChannelType string

// channelTypeSpecs is the registry of channel types, one line per type. The order is the one in which errors and
// documents name the types, and in which a recipient is compared with their forms.
var channelTypeSpecs = mustRegister(
	emailSpec,
	smsSpec,
	instagramDMSpec,
)

// ChannelTypes lists every registered ChannelType in the order of the registry.
var ChannelTypes = func() []ChannelType {
	all := make([]ChannelType, len(channelTypeSpecs))
	for i := range channelTypeSpecs {
		all[i] = channelTypeSpecs[i].Type
	}
	return all
}()

// ParseChannelType parses a ChannelType in any letter case.
func ParseChannelType(s string) (ChannelType, bool) { return parseEnum(s, ChannelTypes) }

// ChannelTypeList names every type in one phrase, as in "EMAIL, SMS or INSTAGRAM_DM".
func ChannelTypeList() string { return TypeList(ChannelTypes, "or") }

// TypeSpec holds all rules of one channel type. Each type is one file of this package with its spec, and one line of channelTypeSpecs.
// Other code does not compare a type with a constant. It uses the type's spec, so that a type without a rule does not register.
type TypeSpec struct {
	Type        ChannelType // the name on the wire, in the database and, in lower case, in queue names and settings
	Label       string      // the name in prose, such as "Instagram DM"
	Address     AddressRule
	Sender      SenderRule
	Content     ContentRule
	Price       PriceRule
	Concurrency int // default bound on the sends in flight of one worker process, from 1
}

// AddressRule defines the addresses of recipients.
type AddressRule struct {
	LeadField string // the text field of Lead that holds the address; the column of the leads table has the same name
	Form      string // completes "must be …" in errors and documents

	// Normalize returns the form of an address in which it is sent to, stored and compared, and false for anything that is
	// not an address of the type.
	Normalize func(s string) (string, bool)

	// Phone says that addresses are phone numbers in E.164 form. A lead may have a national number: package audience completes it
	// with the region of the channel.
	Phone bool

	// Recognize reports whether the form of a recipient identifies the type. nil: it never does, so that requests name the type or
	// a channel. Shown describes the form for the documentation; it is empty if Recognize is nil.
	Recognize func(recipient string) bool
	Shown     string
}

// SenderRule defines the senders of channels, and of messages if Content.Fields has "sender".
type SenderRule struct {
	Form  string // completes "must be …" in errors and documents
	Valid func(s string) bool
}

// ContentRule defines the content of messages.
type ContentRule struct {
	// Fields names the fields of Content that the type has besides "content", by their names on the wire.
	Fields []string

	// Implies names the Fields that identify the type of a request without a recipient. Two types cannot name the same field.
	Implies []string

	// Validate returns the mistakes in the content of a request, whose texts are templates. ValidateContent checks the sender and
	// the fields that the type does not have.
	Validate func(c *Content) []FieldError

	// CheckRendered returns an error without personal data if rendered content cannot be sent.
	CheckRendered func(c *Content) error

	// Segments returns the number of segments that a provider charges for a text. nil: the price does not depend on the length, and
	// the API shows no count.
	Segments func(text string) int

	Rules string // the requirements, as a sentence of the documentation
}

// Has reports whether the content of the type has a field, by its name on the wire.
func (r *ContentRule) Has(field string) bool { return slices.Contains(r.Fields, field) }

// PriceRule defines the cost of one message.
type PriceRule struct {
	Unit string // the unit of a channel's price, such as "an email"
	Cost func(u Usage) Micros
}

// Usage holds the values on which the cost of one message depends.
type Usage struct {
	Price      Micros  // the channel's price per unit
	PriceMedia *Micros // the channel's price of a message with media, nil when it has none
	Segments   int     // 0 for types without segments and for an empty text
	Media      bool    // the message has media
}

// flatPrice is the Cost of types with one price per message.
func flatPrice(u Usage) Micros { return u.Price }

// unregistered is the spec of a type that is not in the registry, for example in a row of a newer version. It accepts no address, sender
// or content.
var unregistered = TypeSpec{
	Label: "unknown type",
	Address: AddressRule{
		Form: "an address of a registered channel type", Normalize: func(string) (string, bool) { return "", false },
	},
	Sender: SenderRule{Form: "a sender of a registered channel type", Valid: func(string) bool { return false }},
	Content: ContentRule{
		Validate: func(*Content) []FieldError {
			return []FieldError{{Loc: []any{"content"}, Msg: "the channel type is not registered", Type: SlugValue}}
		},
		CheckRendered: func(*Content) error { return fmt.Errorf("the channel type is not registered") },
	},
	Price: PriceRule{Unit: "a message", Cost: flatPrice},
}

// Spec returns the spec of t. A type that is not registered gets a spec that accepts nothing.
func (t ChannelType) Spec() *TypeSpec {
	for i := range channelTypeSpecs {
		if channelTypeSpecs[i].Type == t {
			return &channelTypeSpecs[i]
		}
	}
	return &unregistered
}

// TypeSpecs returns the spec of every registered type in the order of the registry. The result is shared and read only.
func TypeSpecs() []TypeSpec { return channelTypeSpecs }

// TypeOfRecipient returns the first type that recognises the form of a recipient.
func TypeOfRecipient(s string) (ChannelType, bool) {
	s = strings.TrimSpace(s)
	for i := range channelTypeSpecs {
		if recognize := channelTypeSpecs[i].Address.Recognize; recognize != nil && recognize(s) {
			return channelTypeSpecs[i].Type, true
		}
	}
	return "", false
}

// TypeOfContent returns the type that the first filled field implies.
func TypeOfContent(c *Content) (ChannelType, bool) {
	for _, f := range c.fields() {
		for i := range channelTypeSpecs {
			if f.filled && slices.Contains(channelTypeSpecs[i].Content.Implies, f.name) {
				return channelTypeSpecs[i].Type, true
			}
		}
	}
	return "", false
}

// TypesWith returns the types whose content has a field, by the field's name on the wire. Every type has "content".
func TypesWith(field string) []ChannelType {
	var types []ChannelType
	for i := range channelTypeSpecs {
		if field == "content" || slices.Contains(channelTypeSpecs[i].Content.Fields, field) {
			types = append(types, channelTypeSpecs[i].Type)
		}
	}
	return types
}

// AddressFields returns the text fields of Lead that hold addresses, each once.
func AddressFields() []string {
	var fields []string
	for i := range channelTypeSpecs {
		if f := channelTypeSpecs[i].Address.LeadField; !slices.Contains(fields, f) {
			fields = append(fields, f)
		}
	}
	return fields
}

func mustRegister(specs ...TypeSpec) []TypeSpec {
	if err := checkSpecs(specs); err != nil {
		panic(err)
	}
	return specs
}

// typeNameForm keeps names valid as parts of queue names, settings and URL paths.
var typeNameForm = regexp.MustCompile(`^[A-Z][A-Z0-9_]{1,31}$`)

// checkSpecs returns an error for an incomplete or contradictory spec.
func checkSpecs(specs []TypeSpec) error {
	types, implied := map[ChannelType]bool{}, map[string]bool{}
	for i := range specs {
		s := &specs[i]
		for what, missing := range s.missing() {
			if missing {
				return fmt.Errorf("register channel type %q: %s is missing or invalid", s.Type, what)
			}
		}
		if types[s.Type] {
			return fmt.Errorf("register channel type %q: registered twice", s.Type)
		}
		types[s.Type] = true
		for _, f := range s.Content.Implies {
			if implied[f] {
				return fmt.Errorf("register channel type %q: another type is implied by %s", s.Type, f)
			}
			implied[f] = true
		}
	}
	return nil
}

// missing reports for each part of a spec whether it is missing or invalid.
func (s *TypeSpec) missing() map[string]bool {
	known := func(field string) bool {
		return slices.ContainsFunc((&Content{}).fields(), func(f contentField) bool { return f.name == field })
	}
	unknown := func(field string) bool { return !known(field) }
	foreign := func(field string) bool { return !slices.Contains(s.Content.Fields, field) }
	return map[string]bool{
		"Type":              !typeNameForm.MatchString(string(s.Type)),
		"Label":             s.Label == "",
		"Address.LeadField": (&Lead{}).Text(s.Address.LeadField) == nil,
		"Address.Form":      s.Address.Form == "",
		"Address.Normalize": s.Address.Normalize == nil,
		"Address.Shown":     (s.Address.Recognize == nil) != (s.Address.Shown == ""),
		"Sender.Form":       s.Sender.Form == "",
		"Sender.Valid":      s.Sender.Valid == nil,
		"Content.Fields":    slices.ContainsFunc(s.Content.Fields, unknown),
		"Content.Implies":   slices.ContainsFunc(s.Content.Implies, foreign),
		"Content.Validate":  s.Content.Validate == nil,
		"Content.Rendered":  s.Content.CheckRendered == nil,
		"Content.Rules":     s.Content.Rules == "",
		"Price.Unit":        s.Price.Unit == "",
		"Price.Cost":        s.Price.Cost == nil,
		"Concurrency":       s.Concurrency < 1,
	}
}

// TypeList names types in one phrase with a conjunction before the last, as in "EMAIL and SMS".
func TypeList(types []ChannelType, conjunction string) string {
	var b strings.Builder
	for i, t := range types {
		switch {
		case i == 0:
		case i == len(types)-1:
			b.WriteString(" " + conjunction + " ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(t))
	}
	return b.String()
}

// ValidRecipient returns the normalised form of an address of a type, and false if it is invalid.
func ValidRecipient(t ChannelType, s string) (string, bool) { return t.Spec().Address.Normalize(s) }
