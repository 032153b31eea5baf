package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"herald/pkg/access"
	"herald/pkg/app"
	"herald/pkg/config"
	"herald/pkg/message"
)

type keysCmd struct {
	Create keysCreateCmd `cmd:"" help:"Create a key and print it. It cannot be shown again."`
	Rotate keysRotateCmd `cmd:"" help:"Replace a key by a new one of the same owner and print it. The old key stays valid for a while."`
	List   keysListCmd   `cmd:"" help:"List the keys, without their secrets."`
	Revoke keysRevokeCmd `cmd:"" help:"Revoke a key. It takes effect within a second and cannot be undone."`
}

type keysCreateCmd struct {
	Name    string `default:"unnamed" help:"Name, for display: the program that uses the key."`
	Owner   string `help:"Owner: keys of one owner share their idempotency keys, so that a request may be repeated with another key. Default: the key's own id."`
	Scope   string `required:"" help:"Scopes, separated by commas: send, read, admin."`
	Expires string `help:"Expiry: days like 90d, a duration like 24h, or an RFC 3339 time. Default: never."`
	Rate    string `default:"default" help:"Requests per second: a number, unlimited, or default (HERALD_KEY_RATE)."`
	IfNone  bool   `help:"Do nothing if a key exists."`
	JSON    bool   `help:"Print JSON."`
}

// keyView is the output for a key. Token is set only by create and rotate. Rate is a number, or the name of a rate that is none.
type keyView struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Owner      string         `json:"owner"`
	Scopes     []access.Scope `json:"scopes"`
	Rate       any            `json:"rate"`
	CreatedAt  time.Time      `json:"created_at"`
	ExpiresAt  *time.Time     `json:"expires_at"`
	RevokedAt  *time.Time     `json:"revoked_at"`
	LastUsedAt *time.Time     `json:"last_used_at"`
	Token      string         `json:"token,omitempty"`
}

func viewKey(k *access.Key, token string) keyView {
	return keyView{k.ID, k.Name, k.Owner, k.Scopes, shownRate(k.Rate), k.CreatedAt, k.ExpiresAt, k.RevokedAt, k.LastUsedAt, token}
}

// Names of rates that are not numbers.
const (
	rateDefault   = "default"   // HERALD_KEY_RATE
	rateUnlimited = "unlimited" // no rate, whatever HERALD_KEY_RATE is
)

// parseRate parses --rate. 0 is the default, as it was before the default had a name.
func parseRate(s string) (float64, error) {
	switch s {
	case rateDefault:
		return 0, nil
	case rateUnlimited:
		return access.Unlimited, nil
	}
	rate, err := strconv.ParseFloat(s, 64)
	if err != nil || !(rate >= 0 && rate <= 1e6) { // false for NaN
		return 0, fmt.Errorf("--rate must be a number from 0 to 1000000, %s or %s", rateDefault, rateUnlimited)
	}
	return rate, nil
}

// shownRate is a key's rate as parseRate reads it.
func shownRate(rate float64) any {
	switch {
	case rate < 0:
		return rateUnlimited
	case rate == 0:
		return rateDefault
	}
	return rate
}

// withKeys calls a function with the keyring of the database. Only new keys need the master key, for their checksums.
func withKeys(ctx context.Context, create bool, work func(k *access.Keyring) error) error {
	cfg, err := parse()
	if err != nil {
		return err
	}
	var sums access.Checksums
	if create {
		if sums, err = checksums(cfg); err != nil {
			return err
		}
	}
	s, err := openCurrent(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	return work(access.NewKeyring(access.Deps{Keys: s.Keys, Usage: s.Keys, Checksums: sums}))
}

// checksums returns the checksums for new keys. They must come from the master key of the API.
func checksums(cfg *config.Config) (access.Checksums, error) {
	switch {
	case cfg.MasterKey == "" && cfg.DatabaseURL != "":
		return access.Checksums{}, fmt.Errorf("%w: HERALD_MASTER_KEY of the API is required: the checksum of a new key is made with it", errUsage)
	case cfg.MasterKey == "":
		if err := os.MkdirAll(cfg.DataDir(), 0o700); err != nil {
			return access.Checksums{}, err
		}
		key, err := app.EmbeddedMasterKey(cfg.DataDir())
		if err != nil {
			return access.Checksums{}, err
		}
		cfg.MasterKey = config.Masked(key)
	}
	return app.Checksums(cfg)
}

// Run creates a key.
func (c *keysCreateCmd) Run(ctx context.Context) error {
	k, err := c.key(time.Now())
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return withKeys(ctx, true, func(keys *access.Keyring) error {
		token, err := keys.Create(ctx, k, c.IfNone)
		switch {
		case err != nil:
			return err
		case token == "" && c.JSON:
			return printJSON(map[string]any{"created": false})
		case token == "":
			fmt.Println("a key exists; none was created")
			return nil
		case c.JSON:
			return printJSON(viewKey(k, token))
		}
		fmt.Printf("%s\nIt cannot be shown again. Send it as \"Authorization: Bearer …\"; its id is %s.\n", token, k.ID)
		return nil
	})
}

func (c *keysCreateCmd) key(now time.Time) (*access.Key, error) {
	scopes, err := access.ParseScopes(c.Scope)
	if err != nil {
		return nil, err
	}
	rate, err := parseRate(c.Rate)
	if err != nil {
		return nil, err
	}
	for _, text := range []struct{ flag, value string }{{"--name", c.Name}, {"--owner", c.Owner}} {
		if utf8.RuneCountInString(text.value) > access.MaxName || strings.ContainsFunc(text.value, message.IsControl) {
			return nil, fmt.Errorf("%s must have at most %d characters and no control characters", text.flag, access.MaxName)
		}
	}
	end, err := expires(c.Expires, now)
	return &access.Key{Name: c.Name, Owner: c.Owner, Scopes: scopes, Rate: rate, ExpiresAt: end}, err
}

// expires parses --expires. It returns nil for an empty one.
func expires(s string, now time.Time) (*time.Time, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // no time is no mistake
	}
	until, err := expiry(s, now)
	if err != nil || !until.After(now) {
		return nil, fmt.Errorf("--expires must be a number of days like 90d, a duration like 24h, or an RFC 3339 time in the future")
	}
	return &until, nil
}

// expiry parses --expires: days, a duration from now, or a time. The result is in UTC.
func expiry(s string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		return now.AddDate(0, 0, n).UTC().Truncate(time.Second), err
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(d).UTC().Truncate(time.Second), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	return t.UTC(), err
}

type keysRotateCmd struct {
	ID      string `arg:"" help:"Id of the key to replace."`
	Grace   string `default:"24h" help:"How long the old key stays valid: days like 7d, or a duration like 24h; 0s: not at all."`
	Expires string `help:"Expiry of the new key: days like 90d, a duration like 24h, or an RFC 3339 time. Default: after as long a life as the old key's."`
	JSON    bool   `help:"Print JSON."`
}

// Run replaces a key.
func (c *keysRotateCmd) Run(ctx context.Context) error {
	grace, err := c.grace()
	var end *time.Time
	if err == nil {
		end, err = expires(c.Expires, time.Now())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return withKeys(ctx, true, func(keys *access.Keyring) error {
		k, token, err := keys.Rotate(ctx, c.ID, grace, end)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(viewKey(k, token))
		}
		fmt.Printf("%s\nIt cannot be shown again; its id is %s and its owner is %s. The key %s ends at %s at the latest.\n",
			token, k.ID, k.Owner, c.ID, k.CreatedAt.Add(grace).Format(time.RFC3339))
		return nil
	})
}

// grace parses --grace.
func (c *keysRotateCmd) grace() (d time.Duration, err error) {
	if days, ok := strings.CutSuffix(c.Grace, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(min(n, math.MaxInt16)) * 24 * time.Hour
	} else {
		d, err = time.ParseDuration(c.Grace)
	}
	if err != nil || d < 0 || d > access.MaxGrace {
		return 0, fmt.Errorf("--grace must be a number of days like 7d or a duration like 24h, from 0s to %d days", access.MaxGrace/(24*time.Hour))
	}
	return d, nil
}

type keysListCmd struct {
	JSON bool `help:"Print JSON."`
}

// Run lists the keys.
func (c *keysListCmd) Run(ctx context.Context) error {
	return withKeys(ctx, false, func(keys *access.Keyring) error {
		list, err := keys.List(ctx)
		if err != nil {
			return err
		}
		views := make([]keyView, len(list))
		for i := range list {
			views[i] = viewKey(&list[i], "")
		}
		if c.JSON {
			return printJSON(views)
		}
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tNAME\tOWNER\tSCOPES\tRATE\tCREATED\tEXPIRES\tLAST USED\tSTATE")
		for _, k := range list {
			names := make([]string, len(k.Scopes))
			for i, s := range k.Scopes {
				names[i] = string(s)
			}
			state := "valid"
			switch {
			case k.RevokedAt != nil:
				state = "revoked"
			case k.ExpiresAt != nil && k.ExpiresAt.Before(time.Now()):
				state = "expired"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%v\t%s\t%s\t%s\t%s\n", k.ID, k.Name, k.Owner, strings.Join(names, ","), shownRate(k.Rate),
				k.CreatedAt.Format(time.DateOnly), day(k.ExpiresAt), day(k.LastUsedAt), state)
		}
		return w.Flush()
	})
}

func day(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format(time.DateOnly)
}

type keysRevokeCmd struct {
	ID   string `arg:"" help:"Id of the key."`
	JSON bool   `help:"Print JSON."`
}

// Run revokes a key.
func (c *keysRevokeCmd) Run(ctx context.Context) error {
	return withKeys(ctx, false, func(keys *access.Keyring) error {
		if err := keys.Revoke(ctx, c.ID); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(map[string]string{"revoked": c.ID})
		}
		fmt.Println("revoked", c.ID)
		return nil
	})
}

type resealCmd struct {
	JSON bool `help:"Print JSON."`
}

// Run seals all credentials with the current master key. After success HERALD_MASTER_KEY_PREVIOUS is no longer needed.
func (c *resealCmd) Run(ctx context.Context) error {
	cfg, err := parse()
	if err != nil {
		return err
	}
	if cfg.MasterKey == "" {
		return fmt.Errorf("%w: HERALD_MASTER_KEY is required: the key to seal with; HERALD_MASTER_KEY_PREVIOUS is the previous one", errUsage)
	}
	sealer, err := app.Sealer(cfg)
	if err != nil {
		return err
	}
	s, err := openCurrent(ctx, cfg, sealer)
	if err != nil {
		return err
	}
	defer s.Close()
	n, err := s.Channels.Reseal(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(map[string]int{"resealed": n})
	}
	fmt.Printf("%d channels resealed\n", n)
	return nil
}
