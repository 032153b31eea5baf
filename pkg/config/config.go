// Package config holds all settings in one struct and reads them from environment variables, once, at the start. Parse
// reports all invalid settings together. No other package reads settings from the environment.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/provider/vendors"
	"herald/pkg/redact"
	"herald/pkg/redisconn"
	"herald/pkg/seal"
)

// Config is the settings. The tags of a field name its variable, default and meaning; `herald config` shows them. A new setting
// needs a field here, a bound in check, and a line in deploy/configuration.md.
type Config struct {
	DatabaseURL      string        `env:"DATABASE_URL" help:"postgres://… or sqlite:///path/file.db"`
	RedisURL         string        `env:"REDIS_URL" help:"redis://host:port/0, rediss:// (TLS), or unix:///path/redis.sock"`
	Listen           string        `env:"HERALD_LISTEN" envDefault:"127.0.0.1:8080" help:"address of the API"`
	AdminListen      string        `env:"HERALD_ADMIN_LISTEN" help:"address of metrics, probes and pprof; the default of the API is 127.0.0.1:9101; a worker binds a free port and logs it"`
	AdminHosts       []string      `env:"HERALD_ADMIN_HOSTS" help:"host names, separated by commas, that the admin address accepts besides localhost; if it is not a loopback address, it also accepts every IP address"`
	PProf            bool          `env:"HERALD_PPROF" envDefault:"false" help:"serve profiles (pprof) on the admin address"`
	Open             Open          `env:"HERALD_OPEN" help:"loopback: allow requests of this machine without an API key until the first key is created; the embedded mode sets it"`
	MasterKey        Masked        `env:"HERALD_MASTER_KEY" help:"base64 of 32 bytes; seals channel credentials and makes the checksums of API keys; required outside the embedded mode"`
	PreviousKeys     Masked        `env:"HERALD_MASTER_KEY_PREVIOUS" help:"earlier master keys, separated by commas: they open credentials and seal none; see herald reseal"`
	KeyRate          float64       `env:"HERALD_KEY_RATE" envDefault:"1000" help:"requests per second of an API key without a rate; 0: unlimited"`
	DrainDelay       time.Duration `env:"HERALD_DRAIN_DELAY" envDefault:"5s" help:"time between the signal to stop, from which /readyz answers 503, and the close of the API's port"`
	BulkWait         time.Duration `env:"HERALD_BULK_WAIT" envDefault:"10s" help:"how long a bulk send waits for the bulk to complete before it answers"`
	InFlight         int           `env:"HERALD_IN_FLIGHT" envDefault:"512" help:"requests in progress at the same time; the API rejects more with 503 (load shedding)"`
	Concurrency      Concurrency   `env:"HERALD_WORKER_CONCURRENCY" help:"maximum of sends in flight per worker process, for each channel type or as one number for all; the actual number follows from the provider's response time"`
	FeedWindow       int           `env:"HERALD_FEED_WINDOW" help:"tasks of one bulk in Redis; 0: 1.5 s of the channel's rate, at least 20, or without a rate 2,000 per running worker, at most 20,000 in all"`
	QueueFast        bool          `env:"HERALD_QUEUE_FAST" envDefault:"true" help:"pipelines and prefetching between Asynq and Redis; false: Asynq talks to Redis by itself"`
	QueuePrefetch    int           `env:"HERALD_QUEUE_PREFETCH" envDefault:"100" help:"tasks that each server of a worker may prefetch; 1: one at a time"`
	UnknownHold      time.Duration `env:"HERALD_UNKNOWN_HOLD" envDefault:"5m" help:"time before an UNKNOWN message is sent once more, if its channel allows that"`
	ProviderURLs     ProviderURLs  // one setting for each provider
	DatabaseMaxConns int           `env:"HERALD_DATABASE_MAX_CONNS" envDefault:"24" help:"database connections per process"`
	Data             string        `env:"HERALD_DATA" help:"directory of the embedded mode (herald serve): the SQLite file and the master key; the default is herald in the user's data directory (XDG_DATA_HOME)"`
	URL              string        `env:"HERALD_URL" envDefault:"http://127.0.0.1:8080" help:"address of the API for the command line"`
	APIKey           Masked        `env:"HERALD_API_KEY" help:"the API key of the command line"`
	LogLevel         slog.Level    `env:"HERALD_LOG_LEVEL" envDefault:"info" help:"debug, info, warn or error"`
	LogFormat        string        `env:"HERALD_LOG_FORMAT" help:"text or json; without it text on a terminal, else json"`
}

// Masked is a secret. String, and so `herald config` and logs, never show it.
type Masked string

// String returns "[set]" or "".
func (m Masked) String() string {
	if m == "" {
		return ""
	}
	return "[set]"
}

// Open says which callers need no API key before the first key is created.
type Open string

// OpenLoopback allows callers on this machine. It is the only value besides the empty one.
const OpenLoopback Open = "loopback"

// ProviderURLs are the base URLs of the providers' APIs by the providers' names. Each has its own setting, whose name
// and default the provider's spec gives.
type ProviderURLs map[string]string

func readProviderURLs() ProviderURLs {
	urls := ProviderURLs{}
	for _, p := range vendors.All.Providers() {
		if urls[p.Name] = os.Getenv(p.URLSetting()); urls[p.Name] == "" {
			urls[p.Name] = p.BaseURL
		}
	}
	return urls
}

// settings lists the setting of each provider.
func (u ProviderURLs) settings() []Setting {
	providers := vendors.All.Providers()
	out := make([]Setting, 0, len(providers))
	for _, p := range providers {
		out = append(out, Setting{p.URLSetting(), p.BaseURL, u[p.Name], "base URL of the API of " + p.Label})
	}
	return out
}

// Concurrency is the maximum number of sends in flight per channel type.
type Concurrency map[message.ChannelType]int

const (
	maxConcurrency      = 5_000
	unlistedConcurrency = 64 // of a type that the setting does not name
)

// defaultConcurrency returns the values of the channel types' specs.
func defaultConcurrency() Concurrency {
	c := Concurrency{}
	for _, s := range message.TypeSpecs() {
		c[s.Type] = s.Concurrency
	}
	return c
}

// UnmarshalText parses one number for all types, or pairs like email=200,sms=64.
func (c *Concurrency) UnmarshalText(b []byte) error {
	*c = Concurrency{}
	if n, err := strconv.Atoi(string(b)); err == nil {
		for _, t := range message.ChannelTypes {
			(*c)[t] = n
		}
	} else {
		for _, pair := range strings.Split(string(b), ",") {
			name, v, ok := strings.Cut(strings.TrimSpace(pair), "=")
			t, known := message.ParseChannelType(name)
			n, err := strconv.Atoi(v)
			if !ok || !known || err != nil {
				return fmt.Errorf("%q is not like %s", pair, defaultConcurrency())
			}
			(*c)[t] = n
		}
	}
	for _, t := range message.ChannelTypes {
		if _, ok := (*c)[t]; !ok {
			(*c)[t] = unlistedConcurrency
		}
		if n := (*c)[t]; n < 1 || n > maxConcurrency {
			return fmt.Errorf("%s: must be from 1 to %d", t, maxConcurrency)
		}
	}
	return nil
}

// String formats c as UnmarshalText parses it.
func (c Concurrency) String() string {
	parts := make([]string, 0, len(message.ChannelTypes))
	for _, t := range message.ChannelTypes {
		parts = append(parts, fmt.Sprintf("%s=%d", strings.ToLower(string(t)), c[t]))
	}
	return strings.Join(parts, ",")
}

// Need is a set of settings that a program requires.
type Need int

// The settings that programs may require.
const (
	Database Need = 1 << iota
	Redis
	MasterKey
)

// Parse reads the environment. Its error lists every invalid or missing setting, one per line, each with the name of its
// variable.
func Parse(need Need) (*Config, error) {
	c := &Config{Concurrency: defaultConcurrency(), ProviderURLs: readProviderURLs()}
	var errs []error
	if err := env.Parse(c); err != nil {
		var all env.AggregateError
		if errors.As(err, &all) {
			for _, e := range all.Errors {
				errs = append(errs, plain(e))
			}
		} else {
			errs = append(errs, err)
		}
	}
	return c, errors.Join(append(errs, c.check(need)...)...)
}

// plain names the variable in an error of the parser instead of the field.
func plain(err error) error {
	var p env.ParseError
	if errors.As(err, &p) {
		if f, ok := reflect.TypeFor[Config]().FieldByName(p.Name); ok {
			return fmt.Errorf("%s: %w", f.Tag.Get("env"), p.Err)
		}
	}
	return err
}

// maxDrainDelay is longer than any load balancer takes to notice that a server is not ready.
const maxDrainDelay = 5 * time.Minute

func (c *Config) check(need Need) []error {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...)))
	}
	if err := checkURL(c.DatabaseURL, need&Database != 0, CheckDatabaseURL); err != nil {
		bad("DATABASE_URL", "%v", err)
	}
	if err := checkURL(c.RedisURL, need&Redis != 0, redisconn.CheckURL); err != nil {
		bad("REDIS_URL", "%v", err)
	}
	if need&MasterKey != 0 && c.MasterKey == "" {
		bad("HERALD_MASTER_KEY", "is required: base64 of 32 bytes, for example from `openssl rand -base64 32`")
	}
	if c.MasterKey != "" {
		if _, err := seal.ParseMasterKey(string(c.MasterKey)); err != nil {
			bad("HERALD_MASTER_KEY", "%v", err)
		}
	}
	if _, err := c.OtherKeys(); err != nil {
		bad("HERALD_MASTER_KEY_PREVIOUS", "%v", err)
	}
	if !(c.KeyRate >= 0 && c.KeyRate <= 1e6) { // false for NaN
		bad("HERALD_KEY_RATE", "must be from 0 to 1000000")
	}
	if !isAddress(c.Listen) {
		bad("HERALD_LISTEN", "must be host:port with a port from 0 to 65535")
	}
	if c.AdminListen != "" && !isAddress(c.AdminListen) {
		bad("HERALD_ADMIN_LISTEN", "must be host:port with a port from 0 to 65535")
	}
	if p, err := url.Parse(c.URL); err != nil || p.Host == "" || (p.Scheme != "http" && p.Scheme != "https") {
		bad("HERALD_URL", "must be an http or https URL")
	}
	for _, p := range vendors.All.Providers() {
		if err := channel.CheckBaseURL(c.ProviderURLs[p.Name]); err != nil {
			bad(p.URLSetting(), "%v", err)
		}
	}
	if c.Open != "" && c.Open != OpenLoopback {
		bad("HERALD_OPEN", "must be loopback, or empty")
	}
	if c.DrainDelay < 0 || c.DrainDelay > maxDrainDelay {
		bad("HERALD_DRAIN_DELAY", "must be from 0s to %s", maxDrainDelay)
	}
	if c.BulkWait < 0 || c.BulkWait > time.Minute {
		bad("HERALD_BULK_WAIT", "must be from 0s to 60s")
	}
	if c.UnknownHold < time.Second {
		bad("HERALD_UNKNOWN_HOLD", "must be at least 1s")
	}
	if c.InFlight < 1 || c.InFlight > 100_000 {
		bad("HERALD_IN_FLIGHT", "must be from 1 to 100000")
	}
	if c.QueuePrefetch < 1 || c.QueuePrefetch > 10_000 {
		bad("HERALD_QUEUE_PREFETCH", "must be from 1 to 10000")
	}
	if c.FeedWindow < 0 || c.FeedWindow > 1_000_000 {
		bad("HERALD_FEED_WINDOW", "must be from 0 to 1000000")
	}
	if c.DatabaseMaxConns < 4 || c.DatabaseMaxConns > 1000 {
		bad("HERALD_DATABASE_MAX_CONNS", "must be from 4 to 1000")
	}
	if c.LogFormat != "" && c.LogFormat != "text" && c.LogFormat != "json" {
		bad("HERALD_LOG_FORMAT", "must be text or json")
	}
	return errs
}

// OtherKeys returns the earlier master keys, decoded.
func (c *Config) OtherKeys() ([][]byte, error) {
	var keys [][]byte
	for _, s := range strings.FieldsFunc(string(c.PreviousKeys), func(r rune) bool { return r == ',' }) {
		k, err := seal.ParseMasterKey(s)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Logger returns the program's logger. It writes to standard error, and redacts attributes whose text comes from outside.
func (c *Config) Logger() *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel, ReplaceAttr: redact.Attr}
	terminal := false
	if st, err := os.Stderr.Stat(); err == nil {
		terminal = st.Mode()&os.ModeCharDevice != 0
	}
	if c.LogFormat == "text" || (c.LogFormat == "" && terminal) {
		return slog.New(slog.NewTextHandler(os.Stderr, o))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, o))
}

// Setting is one setting as `herald config` shows it.
type Setting struct {
	Name    string `json:"name"`
	Default string `json:"default"`
	Value   string `json:"value"`
	Help    string `json:"help"`
}

// Settings returns all settings with their current values. Secrets are masked, also those in URLs.
func (c *Config) Settings() []Setting {
	v := reflect.ValueOf(*c)
	out := make([]Setting, 0, v.NumField())
	for i := range v.NumField() {
		if urls, ok := v.Field(i).Interface().(ProviderURLs); ok {
			out = append(out, urls.settings()...)
			continue
		}
		tag := v.Type().Field(i).Tag
		value, standard := fmt.Sprint(v.Field(i).Interface()), tag.Get("envDefault")
		switch tag.Get("env") {
		case "DATABASE_URL", "REDIS_URL":
			if u, err := url.Parse(value); err == nil && u.User != nil {
				value = u.Redacted()
			}
		case "HERALD_WORKER_CONCURRENCY":
			standard = defaultConcurrency().String()
		case "HERALD_DATA":
			value, standard = c.DataDir(), defaultData()
		}
		out = append(out, Setting{tag.Get("env"), standard, value, tag.Get("help")})
	}
	return out
}
