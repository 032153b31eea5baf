package provider

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"

	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/provider/transport"
)

// Spec is a provider: the requirements of its channels and the constructor of its adapter. Each adapter's package declares one,
// and package vendors lists it.
type Spec struct {
	channel.ProviderSpec

	// New returns the adapter. It uses baseURL for channels without a base URL, and client for all calls.
	New func(baseURL string, client *http.Client) delivery.Provider
}

// Registry is a checked list of providers. It is read only and safe for concurrent use.
type Registry struct {
	specs     []Spec
	providers channel.Providers
}

// NewRegistry returns the registry of the specs, or an error that names an incomplete or repeated one.
func NewRegistry(specs ...Spec) (*Registry, error) {
	declared := make([]channel.ProviderSpec, len(specs))
	for i := range specs {
		if specs[i].New == nil {
			return nil, fmt.Errorf("register provider %q: constructor is missing", specs[i].Name)
		}
		declared[i] = specs[i].ProviderSpec
	}
	providers, err := channel.NewProviders(declared...)
	if err != nil {
		return nil, err
	}
	return &Registry{specs: specs, providers: providers}, nil
}

// Specs returns the providers in the order of the registry.
func (r *Registry) Specs() []Spec { return r.specs }

// Providers returns the declarative part of the registry.
func (r *Registry) Providers() channel.Providers { return r.providers }

// Names returns the providers' names in the order of the registry.
func (r *Registry) Names() []string {
	names := make([]string, len(r.specs))
	for i := range r.specs {
		names[i] = r.specs[i].Name
	}
	return names
}

// Adapters makes the adapter of every provider, by the provider's name. urls are the base URLs that differ from those of the specs.
func (r *Registry) Adapters(urls map[string]string) map[string]delivery.Provider {
	adapters := make(map[string]delivery.Provider, len(r.specs))
	for i := range r.specs {
		s := &r.specs[i]
		adapters[s.Name] = s.New(cmp.Or(urls[s.Name], s.BaseURL), transport.NewClient())
	}
	return adapters
}

// BaseURL returns the URL of the provider for a channel: that of the channel, else that of the adapter, without a slash at its end.
func BaseURL(c *channel.Channel, adapter string) string {
	return strings.TrimSuffix(cmp.Or(c.BaseURL, adapter), "/")
}
