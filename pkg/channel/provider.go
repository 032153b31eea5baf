package channel

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"herald/pkg/message"
	"herald/pkg/seal"
)

// ProviderSpec is the declarative part of a provider: the requirements of its channels. Package channel knows no provider by name. The
// adapters declare their specs, and package vendors lists them.
type ProviderSpec struct {
	Name        string                // the name on the wire and in the database: lower case letters and digits
	Label       string                // the name in prose, such as "SendGrid"
	Types       []message.ChannelType // the channel types that the provider sends
	BaseURL     string                // of the provider's API, unless the channel or a setting names another
	OnUnknown   Policy                // the policy of channels that name none
	Credentials []Credential
}

// Credential is one credential of a provider's channels.
type Credential struct {
	Name     string
	Required bool
	Public   bool // the value is no secret, such as a public key or an account id

	// Check returns what is wrong with a value. nil: any value of one line is accepted.
	Check func(value string) error
}

// Providers is the list of providers that channels may use. A channel that names no provider gets the first one that sends its type.
type Providers []ProviderSpec

var providerNameForm = regexp.MustCompile(`^[a-z][a-z0-9]{1,31}$`)

// NewProviders returns the list of the specs, or an error that names an incomplete or repeated one.
func NewProviders(specs ...ProviderSpec) (Providers, error) {
	var set Providers
	for _, s := range specs {
		if _, taken := set.Named(s.Name); taken {
			return nil, fmt.Errorf("register provider %q: registered twice", s.Name)
		}
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("register provider %q: %w", s.Name, err)
		}
		set = append(set, s)
	}
	return set, nil
}

func (s *ProviderSpec) check() error {
	unknown := func(t message.ChannelType) bool { return !slices.Contains(message.ChannelTypes, t) }
	switch {
	case !providerNameForm.MatchString(s.Name):
		return errors.New("name is invalid")
	case s.Label == "":
		return errors.New("label is missing")
	case len(s.Types) == 0 || slices.ContainsFunc(s.Types, unknown):
		return errors.New("channel types are missing or not registered")
	case CheckBaseURL(s.BaseURL) != nil:
		return errors.New("base URL is missing or invalid")
	case !s.OnUnknown.valid():
		return errors.New("policy for unknown outcomes is missing")
	}
	seen := map[string]bool{}
	for _, c := range s.Credentials {
		if c.Name == "" || seen[c.Name] {
			return fmt.Errorf("credential %q is unnamed or declared twice", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

// URLSetting is the environment variable that replaces BaseURL, such as HERALD_SENDGRID_URL.
func (s *ProviderSpec) URLSetting() string { return "HERALD_" + strings.ToUpper(s.Name) + "_URL" }

// Named returns the provider with a name.
func (p Providers) Named(name string) (*ProviderSpec, bool) {
	for i := range p {
		if p[i].Name == name {
			return &p[i], true
		}
	}
	return nil, false
}

// For returns the names of the providers that send a channel type. The first is the default.
func (p Providers) For(t message.ChannelType) []string {
	var names []string
	for i := range p {
		if slices.Contains(p[i].Types, t) {
			names = append(names, p[i].Name)
		}
	}
	return names
}

// OneLine returns an error for a value with a line break, which would end a header.
func OneLine(value string) error {
	if strings.ContainsAny(value, "\r\n") {
		return errors.New("must be one line")
	}
	return nil
}

// PathSegment returns an error for a value that cannot be one segment of a URL's path.
func PathSegment(value string) error {
	if value == "." || value == ".." || strings.ContainsAny(value, "/\\?#% \t\r\n") {
		return errors.New("must not contain slashes, spaces or other separators of a URL")
	}
	return nil
}

// checkCredentials returns the invalid credentials of a channel of the provider: missing, malformed and undeclared ones.
func (s *ProviderSpec) checkCredentials(values map[string]seal.Secret) []message.FieldError {
	var errs []message.FieldError
	fail := func(slug, msg, name string) {
		errs = append(errs, message.FieldError{Loc: []any{"credentials", name}, Msg: msg, Type: slug})
	}
	known := map[string]bool{}
	for _, c := range s.Credentials {
		known[c.Name] = true
		value, given := values[c.Name]
		switch {
		case c.Required && value.Empty():
			fail(message.SlugMissing, "field required", c.Name)
		case given:
			if err := c.checkValue(value.Reveal()); err != nil {
				fail(message.SlugValue, err.Error(), c.Name)
			}
		}
	}
	for name := range values {
		if !known[name] {
			fail(message.SlugExtra, fmt.Sprintf("%s has no credential %s", s.Name, name), name)
		}
	}
	return errs
}

func (c *Credential) checkValue(value string) error {
	if err := OneLine(value); err != nil || c.Check == nil {
		return err
	}
	return c.Check(value)
}
