package message

import (
	"slices"
	"strings"
	"testing"
)

// released are the channel types that callers use. Their names and fields are part of the contract; a new type needs no entry.
var released = map[ChannelType][]string{
	"EMAIL":        {"subject", "html_content", "sender_name", "sender", "reply_to", "headers", "attachments"},
	"SMS":          {"sender", "media_urls"},
	"INSTAGRAM_DM": {"image_url"},
}

// The list of types follows the registry, and the released names stay.
func TestChannelTypes(t *testing.T) {
	var names []string
	for i, s := range TypeSpecs() {
		if ChannelTypes[i] != s.Type || s.Type.Spec().Label != s.Label {
			t.Errorf("type %d is %s, its spec is of %s", i, ChannelTypes[i], s.Type)
		}
		names = append(names, string(s.Type))
		for _, in := range []string{string(s.Type), strings.ToLower(string(s.Type))} {
			if got, ok := ParseChannelType(in); got != s.Type || !ok {
				t.Errorf("ParseChannelType(%q) = %q, %v", in, got, ok)
			}
		}
	}
	last := len(names) - 1
	if got, want := ChannelTypeList(), strings.Join(names[:last], ", ")+" or "+names[last]; got != want {
		t.Errorf("list %q, want %q", got, want)
	}
	for typ := range released {
		if !slices.Contains(ChannelTypes, typ) {
			t.Errorf("%s is not registered", typ)
		}
	}
	for _, in := range []string{"instagram", ""} {
		if got, ok := ParseChannelType(in); got != "" || ok {
			t.Errorf("ParseChannelType(%q) = %q, %v", in, got, ok)
		}
	}
}

// Every registered type has a complete spec, and its rules refuse what no type accepts.
func TestEveryTypeIsComplete(t *testing.T) {
	for _, s := range TypeSpecs() {
		for part, missing := range s.missing() {
			if missing {
				t.Errorf("%s has no valid %s", s.Type, part)
			}
		}
		if _, ok := s.Address.Normalize(""); ok || s.Sender.Valid("") {
			t.Errorf("%s accepts an empty address", s.Type)
		}
		if len(s.Content.Validate(&Content{})) == 0 || s.Content.CheckRendered(&Content{}) == nil {
			t.Errorf("%s accepts an empty message", s.Type)
		}
		if s.Address.Recognize != nil && s.Address.Recognize("") {
			t.Errorf("%s recognises an empty recipient", s.Type)
		}
		if got := s.Price.Cost(Usage{Price: 3, Segments: 1}); got != 3 {
			t.Errorf("one unit of %s costs %d, want its price", s.Type, got)
		}
	}
}

func TestTypeList(t *testing.T) {
	for want, types := range map[string][]ChannelType{
		"": nil, "SMS": {SMS}, "EMAIL and SMS": {Email, SMS}, "EMAIL, SMS and INSTAGRAM_DM": {Email, SMS, InstagramDM},
	} {
		if got := TypeList(types, "and"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// validSpec returns a complete spec of a type that is not in the registry.
func validSpec() TypeSpec {
	s := emailSpec
	s.Type, s.Content.Implies = "FAX", nil
	return s
}

func TestRegistryAcceptsACompleteSpec(t *testing.T) {
	if err := checkSpecs(append(channelTypeSpecs[:len(channelTypeSpecs):len(channelTypeSpecs)], validSpec())); err != nil {
		t.Error(err)
	}
	withoutForm := validSpec()
	withoutForm.Address.Recognize, withoutForm.Address.Shown, withoutForm.Content.Segments = nil, "", nil
	if err := checkSpecs([]TypeSpec{withoutForm}); err != nil {
		t.Errorf("the optional parts are required: %v", err)
	}
}

func TestRegistryRefusesAnIncompleteSpec(t *testing.T) {
	for what, remove := range map[string]func(s *TypeSpec){
		"Type":              func(s *TypeSpec) { s.Type = "" },
		"Type is":           func(s *TypeSpec) { s.Type = "fax" },
		"Label":             func(s *TypeSpec) { s.Label = "" },
		"Address.LeadField": func(s *TypeSpec) { s.Address.LeadField = "fax" },
		"Address.Form":      func(s *TypeSpec) { s.Address.Form = "" },
		"Address.Normalize": func(s *TypeSpec) { s.Address.Normalize = nil },
		"Address.Shown":     func(s *TypeSpec) { s.Address.Shown = "" },
		"Address.Shown is":  func(s *TypeSpec) { s.Address.Recognize = nil },
		"Sender.Form":       func(s *TypeSpec) { s.Sender.Form = "" },
		"Sender.Valid":      func(s *TypeSpec) { s.Sender.Valid = nil },
		"Content.Fields":    func(s *TypeSpec) { s.Content.Fields = []string{"pages"} },
		"Content.Implies":   func(s *TypeSpec) { s.Content.Implies = []string{"image_url"} },
		"Content.Validate":  func(s *TypeSpec) { s.Content.Validate = nil },
		"Content.Rendered":  func(s *TypeSpec) { s.Content.CheckRendered = nil },
		"Content.Rules":     func(s *TypeSpec) { s.Content.Rules = "" },
		"Price.Unit":        func(s *TypeSpec) { s.Price.Unit = "" },
		"Price.Cost":        func(s *TypeSpec) { s.Price.Cost = nil },
		"Concurrency":       func(s *TypeSpec) { s.Concurrency = 0 },
	} {
		s := validSpec()
		remove(&s)
		if err := checkSpecs([]TypeSpec{s}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("without %s: %v", what, err)
		}
	}
}

func TestRegistryRefusesContradictions(t *testing.T) {
	twice := validSpec()
	same := validSpec()
	same.Type, same.Content.Implies = "TELEX", []string{"subject"}
	for what, specs := range map[string][]TypeSpec{
		"registered twice":               {twice, twice},
		"another type is implied by sub": {emailSpec, same},
	} {
		if err := checkSpecs(specs); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestMustRegisterPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an incomplete spec registers")
		}
	}()
	mustRegister(TypeSpec{Type: "FAX"})
}

// A row may name a type that this version does not know. Nothing is sent for it.
func TestUnregisteredTypeAcceptsNothing(t *testing.T) {
	s := ChannelType("FAX").Spec()
	if s == smsSpec.Type.Spec() || s.Address.LeadField != "" || s.Content.Segments != nil {
		t.Errorf("%+v", s)
	}
	if _, ok := ValidRecipient("FAX", "+14155550100"); ok || s.Sender.Valid("+14155550100") {
		t.Error("an address of an unregistered type is valid")
	}
	if errs := ValidateContent("FAX", &Content{Text: "x"}); len(errs) != 1 || errs[0].Type != SlugValue {
		t.Errorf("content of an unregistered type: %+v", errs)
	}
	if s.Content.CheckRendered(&Content{Text: "x"}) == nil || s.Price.Cost(Usage{Price: 3}) != 3 || (&Lead{Email: "a"}).Address("FAX") != "" {
		t.Error("rules of an unregistered type")
	}
}

func TestTypeOfRecipient(t *testing.T) {
	for in, want := range map[string]ChannelType{
		"a@b": Email, " a@b ": Email, "+1234567890": SMS, " +1234567890": SMS, "+0123456789": "", "+123": "", "+1234567890123456": "",
		"1234567890123456": InstagramDM, "123456789012345": InstagramDM, "12345678901234567": InstagramDM,
		"12345678901234": "", "123456789012345678": "", "": "", "hello": "",
	} {
		if got, ok := TypeOfRecipient(in); got != want || ok != (want != "") {
			t.Errorf("TypeOfRecipient(%q) = %s, %v", in, got, ok)
		}
	}
}

func TestTypeOfContent(t *testing.T) {
	for name, c := range map[string]struct {
		content Content
		want    ChannelType
	}{
		"subject": {Content{Subject: "x"}, Email}, "html": {Content{HTML: "x"}, Email}, "media": {Content{MediaURLs: []string{"x"}}, SMS},
		"picture": {Content{ImageURL: "x"}, InstagramDM}, "subject and picture": {Content{Subject: "x", ImageURL: "y"}, Email},
		"text": {Content{Text: "x"}, ""}, "sender": {Content{Sender: "x"}, ""}, "sender name": {Content{SenderName: "x"}, ""}, "nothing": {},
	} {
		if got, ok := TypeOfContent(&c.content); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %s, %v", name, got, ok)
		}
	}
}

func TestTypesWith(t *testing.T) {
	for _, f := range append((&Content{}).fields(), contentField{name: "content"}, contentField{name: "fax"}) {
		types := TypesWith(f.name)
		for _, s := range TypeSpecs() {
			has := f.name == "content" || slices.Contains(s.Content.Fields, f.name)
			if slices.Contains(types, s.Type) != has {
				t.Errorf("%s: %v, but %s has it: %v", f.name, types, s.Type, has)
			}
		}
		for typ, fields := range released {
			if has := f.name == "content" || slices.Contains(fields, f.name); slices.Contains(types, typ) != has {
				t.Errorf("%s: %v, but %s should have it: %v", f.name, types, typ, has)
			}
		}
		if !slices.IsSortedFunc(types, func(a, b ChannelType) int { return slices.Index(ChannelTypes, a) - slices.Index(ChannelTypes, b) }) {
			t.Errorf("%s: %v is not in the order of the registry", f.name, types)
		}
	}
}

func TestAddresses(t *testing.T) {
	fields := AddressFields()
	if len(fields) != len(slices.Compact(slices.Sorted(slices.Values(fields)))) {
		t.Errorf("address fields %v repeat", fields)
	}
	for _, s := range TypeSpecs() {
		l := &Lead{}
		field := l.Text(s.Address.LeadField)
		if *field = "address"; l.Address(s.Type) != "address" || !slices.Contains(fields, s.Address.LeadField) {
			t.Errorf("%s: address %q, fields %v", s.Type, l.Address(s.Type), fields)
		}
	}
	l := &Lead{Email: "e", Phone: "p", InstagramID: "i"}
	for typ, want := range map[ChannelType]string{Email: "e", SMS: "p", InstagramDM: "i"} {
		if got := l.Address(typ); got != want {
			t.Errorf("address for %s: %q, want %q", typ, got, want)
		}
	}
	if l.Text("email") != &l.Email || l.Text("fax") != nil {
		t.Error("text field by name")
	}
}

func TestValidRecipient(t *testing.T) {
	for _, c := range []struct {
		typ      ChannelType
		in, want string
	}{
		{Email, " Ann@EXAMPLE.com ", "Ann@example.com"}, {Email, "+14155550100", ""}, {Email, "", ""},
		{SMS, " +14155550100 ", "+14155550100"}, {SMS, "4155550100", ""}, {SMS, "+123456", ""}, {SMS, "+1234567", "+1234567"},
		{SMS, "+123456789012345", "+123456789012345"}, {SMS, "+1234567890123456", ""}, {SMS, "a@b.test", ""},
		{InstagramDM, " 1 ", "1"}, {InstagramDM, strings.Repeat("1", 32), strings.Repeat("1", 32)}, {InstagramDM, strings.Repeat("1", 33), ""},
		{InstagramDM, "1a", ""}, {InstagramDM, "", ""},
	} {
		got, ok := ValidRecipient(c.typ, c.in)
		if ok != (c.want != "") || (ok && got != c.want) {
			t.Errorf("%s %q: %q, %v", c.typ, c.in, got, ok)
		}
	}
}

func TestSenders(t *testing.T) {
	for _, c := range []struct {
		typ ChannelType
		in  string
		ok  bool
	}{
		{Email, "news@acme.test", true}, {Email, "+15005550006", false}, {Email, "", false},
		{SMS, "+15005550006", true}, {SMS, "123", true}, {SMS, "12345678", true}, {SMS, "123456789012", false}, {SMS, "ACME News", true},
		{SMS, "MG0123456789abcdef0123456789abcdef", true}, {SMS, "MG0123456789abcdef0123456789abcde", false}, {SMS, "", false}, {SMS, " x", false},
		{SMS, "x ", false}, {SMS, "TwelveLetter", false}, {SMS, "a\nb", false}, {SMS, "+01234567890", false},
		{InstagramDM, "17841400000000000", true}, {InstagramDM, "acme", false}, {InstagramDM, "", false},
	} {
		if got := c.typ.Spec().Sender.Valid(c.in); got != c.ok {
			t.Errorf("%s %q: %v", c.typ, c.in, got)
		}
	}
}

func TestCosts(t *testing.T) {
	for name, c := range map[string]struct {
		typ   ChannelType
		usage Usage
		want  Micros
	}{
		"email": {Email, Usage{Price: 10, PriceMedia: new(Micros(99)), Segments: 3, Media: true}, 10}, "one segment": {SMS, Usage{Price: 79, PriceMedia: new(Micros(200)), Segments: 1}, 79},
		"three segments": {SMS, Usage{Price: 79, PriceMedia: new(Micros(200)), Segments: 3}, 237}, "media": {SMS, Usage{Price: 79, PriceMedia: new(Micros(200)), Segments: 3, Media: true}, 200},
		"media without its price": {SMS, Usage{Price: 79, Segments: 2, Media: true}, 158},
		"free media":              {SMS, Usage{Price: 79, PriceMedia: new(Micros(0)), Segments: 2, Media: true}, 0}, "no text": {SMS, Usage{Price: 79}, 79},
		"instagram": {InstagramDM, Usage{Price: 5, PriceMedia: new(Micros(9)), Segments: 2, Media: true}, 5},
	} {
		if got := c.typ.Spec().Price.Cost(c.usage); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
