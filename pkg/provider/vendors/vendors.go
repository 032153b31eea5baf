// Package vendors is the registry of providers: the one list that names every adapter. The wiring, the settings, the
// OpenAPI document, the bench and the tests iterate over it.
package vendors

import (
	"herald/pkg/provider"
	"herald/pkg/provider/instagram"
	"herald/pkg/provider/sendgrid"
	"herald/pkg/provider/twilio"
)

// All is the registry, one line per provider. The first provider of a channel type is the default of new channels.
var All = mustRegister(
	sendgrid.Spec,
	twilio.Spec,
	instagram.Spec,
)

func mustRegister(specs ...provider.Spec) *provider.Registry {
	r, err := provider.NewRegistry(specs...)
	if err != nil {
		panic(err)
	}
	return r
}
