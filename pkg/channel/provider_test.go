package channel

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"herald/pkg/message"
	"herald/pkg/seal"
)

// testProviders are two providers of email and one of two types.
var testProviders = mustProviders(
	ProviderSpec{
		Name: "sendgrid", Label: "SendGrid", Types: []message.ChannelType{message.Email}, BaseURL: "https://one.test", OnUnknown: ResendOnce,
		Credentials: []Credential{{Name: "api_key", Required: true}, {Name: "webhook_public_key", Public: true}},
	},
	ProviderSpec{
		Name: "ses", Label: "SES", Types: []message.ChannelType{message.Email}, BaseURL: "https://two.test", OnUnknown: Hold,
		Credentials: []Credential{{Name: "account", Required: true, Check: PathSegment}},
	},
	ProviderSpec{
		Name: "both", Label: "Both", Types: []message.ChannelType{message.SMS, message.InstagramDM}, BaseURL: "https://three.test", OnUnknown: Hold,
	},
)

func mustProviders(specs ...ProviderSpec) Providers {
	p, err := NewProviders(specs...)
	if err != nil {
		panic(err)
	}
	return p
}

func TestProvidersOfATypeInOrder(t *testing.T) {
	for typ, want := range map[message.ChannelType][]string{
		message.Email: {"sendgrid", "ses"}, message.SMS: {"both"}, message.InstagramDM: {"both"}, "FAX": nil,
	} {
		if got := testProviders.For(typ); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", typ, got, want)
		}
	}
	if p, ok := testProviders.Named("ses"); !ok || p.Label != "SES" || p.URLSetting() != "HERALD_SES_URL" {
		t.Errorf("%+v", p)
	}
	if _, ok := testProviders.Named("x"); ok {
		t.Error("a provider that is not registered is found")
	}
}

func TestProvidersRefuseAnIncompleteSpec(t *testing.T) {
	for what, change := range map[string]func(s *ProviderSpec){
		"name":       func(s *ProviderSpec) { s.Name = "Send Grid" },
		"label":      func(s *ProviderSpec) { s.Label = "" },
		"types":      func(s *ProviderSpec) { s.Types = nil },
		"registered": func(s *ProviderSpec) { s.Types = []message.ChannelType{"FAX"} },
		"base URL":   func(s *ProviderSpec) { s.BaseURL = "" },
		"policy":     func(s *ProviderSpec) { s.OnUnknown = "" },
		"unnamed":    func(s *ProviderSpec) { s.Credentials = []Credential{{}} },
		"twice":      func(s *ProviderSpec) { s.Credentials = []Credential{{Name: "a"}, {Name: "a"}} },
	} {
		s := testProviders[0]
		change(&s)
		if _, err := NewProviders(s); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := NewProviders(testProviders[0], testProviders[0]); err == nil || !strings.Contains(err.Error(), "registered twice") {
		t.Errorf("the same provider twice: %v", err)
	}
}

// wrong lists mistakes as "path slug", sorted.
func wrong(errs []message.FieldError) []string {
	var out []string
	for _, e := range errs {
		out = append(out, strings.Trim(fmt.Sprint(e.Loc), "[]")+" "+e.Type)
	}
	slices.Sort(out)
	return out
}

func credentials(kv ...string) map[string]seal.Secret {
	m := map[string]seal.Secret{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = seal.NewSecret(kv[i+1])
	}
	return m
}

func TestPrepareChecksAChannel(t *testing.T) {
	valid := func() *Channel {
		return &Channel{Key: Key{Type: message.Email}, Sender: "a@acme.test", Credentials: credentials("api_key", "SG.x")}
	}
	for name, c := range map[string]struct {
		change func(c *Channel)
		want   []string
	}{
		"valid":                  {func(*Channel) {}, nil},
		"another provider":       {func(c *Channel) { c.Provider, c.Credentials = "ses", credentials("account", "a") }, nil},
		"unknown provider":       {func(c *Channel) { c.Provider = "x" }, []string{"provider enum"}},
		"provider of other type": {func(c *Channel) { c.Provider, c.Credentials = "both", nil }, []string{"credentials api_key missing", "provider enum"}},
		"unknown type":           {func(c *Channel) { c.Type = "FAX" }, []string{"credentials api_key extra_forbidden", "provider enum", "sender value_error"}},
		"sender":                 {func(c *Channel) { c.Sender = "acme" }, []string{"sender value_error"}},
		"policy":                 {func(c *Channel) { c.OnUnknown = "x" }, []string{"on_unknown enum"}},
		"base URL":               {func(c *Channel) { c.BaseURL = "x" }, []string{"base_url value_error"}},
		"currency":               {func(c *Channel) { c.Currency = "EURO" }, []string{"currency value_error"}},
		"region":                 {func(c *Channel) { c.Region = "USA" }, []string{"region value_error"}},
		"short currency":         {func(c *Channel) { c.Currency = "EU" }, []string{"currency value_error"}},
		"short region":           {func(c *Channel) { c.Region = "U" }, []string{"region value_error"}},
		"missing credential":     {func(c *Channel) { c.Credentials = nil }, []string{"credentials api_key missing"}},
		"empty credential":       {func(c *Channel) { c.Credentials = credentials("api_key", "") }, []string{"credentials api_key missing"}},
		"two lines":              {func(c *Channel) { c.Credentials = credentials("api_key", "a\nb") }, []string{"credentials api_key value_error"}},
		"carriage return":        {func(c *Channel) { c.Credentials = credentials("api_key", "a\rb") }, []string{"credentials api_key value_error"}},
		"optional of two lines":  {func(c *Channel) { c.Credentials["webhook_public_key"] = seal.NewSecret("a\nb") }, []string{"credentials webhook_public_key value_error"}},
		"foreign credential":     {func(c *Channel) { c.Credentials["x"] = seal.NewSecret("y") }, []string{"credentials x extra_forbidden"}},
		"format":                 {func(c *Channel) { c.Provider, c.Credentials = "ses", credentials("account", "a/b") }, []string{"credentials account value_error"}},
	} {
		ch := valid()
		c.change(ch)
		if got := wrong(NewRegistry(nil, nil, nil, testProviders).prepare(ch)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestPrepareFillsDefaults(t *testing.T) {
	r := NewRegistry(nil, nil, nil, testProviders)
	open := &Channel{Key: Key{Type: message.Email}, Region: "us"}
	r.prepare(open)
	if open.Provider != "sendgrid" || open.OnUnknown != ResendOnce || open.Currency != "USD" || open.Region != "US" || open.State != Active || open.ID.Version() != 7 {
		t.Errorf("defaults: %+v", open)
	}
	second := &Channel{Key: Key{Type: message.Email}, Provider: "ses"}
	if r.prepare(second); second.OnUnknown != Hold {
		t.Errorf("policy of the second provider: %s", second.OnUnknown)
	}
	given := &Channel{Key: open.Key, OnUnknown: Hold, Currency: "eur", State: Paused}
	if r.prepare(given); given.OnUnknown != Hold || given.Currency != "EUR" || given.State != Paused || given.ID != open.ID {
		t.Errorf("given values: %+v", given)
	}
}

func TestPathSegment(t *testing.T) {
	for in, ok := range map[string]bool{"AC0123": true, "a-b_c.d": true, "": true, ".": false, "..": false, "a/b": false, "a?b": false, "a#b": false, "a%2fb": false, "a b": false, `a\b`: false} {
		if err := PathSegment(in); (err == nil) != ok {
			t.Errorf("PathSegment(%q): %v", in, err)
		}
	}
}
