package vendors

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/provider"
)

// Requests that name no provider keep their meaning, and stored channels keep theirs.
func TestDefaultsAreStable(t *testing.T) {
	for typ, want := range map[message.ChannelType]struct {
		name, url string
		policy    channel.Policy
	}{
		message.Email:       {"sendgrid", "https://api.sendgrid.com", channel.ResendOnce},
		message.SMS:         {"twilio", "https://api.twilio.com", channel.Hold},
		message.InstagramDM: {"instagram", "https://graph.instagram.com", channel.Hold},
	} {
		names := All.Providers().For(typ)
		if len(names) == 0 || names[0] != want.name {
			t.Fatalf("providers of %s: %v", typ, names)
		}
		if p, _ := All.Providers().Named(want.name); p.BaseURL != want.url || p.OnUnknown != want.policy {
			t.Errorf("%s: %+v", want.name, p)
		}
	}
}

func TestEveryTypeHasAProvider(t *testing.T) {
	for _, typ := range message.ChannelTypes {
		if len(All.Providers().For(typ)) == 0 {
			t.Errorf("no provider sends %s", typ)
		}
	}
}

func TestEveryProviderHasAnAdapter(t *testing.T) {
	adapters := All.Adapters(map[string]string{"twilio": "https://other.test"})
	if len(adapters) != len(All.Names()) {
		t.Errorf("%d adapters of %v", len(adapters), All.Names())
	}
	for _, name := range All.Names() {
		if adapters[name] == nil {
			t.Errorf("%s has no adapter", name)
		}
	}
}

// The adapters get their own URL where the settings name one.
func TestAdaptersGetTheirURL(t *testing.T) {
	got := map[string]string{}
	spec := func(name string) provider.Spec {
		s := All.Specs()[0]
		s.Name = name
		s.New = func(url string, client *http.Client) delivery.Provider {
			if client == nil {
				t.Errorf("%s has no client", name)
			}
			got[name] = url
			return nil
		}
		return s
	}
	r, err := provider.NewRegistry(spec("one"), spec("two"))
	if err != nil {
		t.Fatal(err)
	}
	r.Adapters(map[string]string{"two": "https://two.test"})
	if got["one"] != "https://api.sendgrid.com" || got["two"] != "https://two.test" {
		t.Errorf("%v", got)
	}
}

func TestRegistryRefuses(t *testing.T) {
	noConstructor, unnamed := All.Specs()[0], All.Specs()[0]
	noConstructor.New, unnamed.Name = nil, ""
	for what, specs := range map[string][]provider.Spec{
		"constructor is missing": {noConstructor}, "name is invalid": {unnamed}, "registered twice": {All.Specs()[0], All.Specs()[0]},
	} {
		if _, err := provider.NewRegistry(specs...); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("an invalid registry is accepted")
		}
	}()
	mustRegister(noConstructor)
}

func TestNamesAreUnique(t *testing.T) {
	names := slices.Clone(All.Names())
	slices.Sort(names)
	if len(slices.Compact(names)) != len(All.Names()) {
		t.Errorf("%v", names)
	}
}
