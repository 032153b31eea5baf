package client

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"herald/pkg/contract"
)

// Quota is what the API key of a request may still do, as the response tells it. Keys without a rate have none.
type Quota struct {
	Limit     int           // requests that the key may make within Window
	Window    time.Duration // whole seconds
	Remaining int           // requests that the key may make at once
	Reset     time.Duration // until all of Limit is available again; whole seconds
}

// WithQuota passes the quota of each response to a function, which may be called concurrently. A program that makes many requests
// can slow down before the API rejects them.
func WithQuota(note func(Quota)) Option { return func(c *Client) { c.quota = note } }

func (c *Client) tellQuota(h http.Header) {
	if c.quota == nil {
		return
	}
	policy, left := parameters(h.Get(contract.HeaderRateLimitPolicy)), parameters(h.Get(contract.HeaderRateLimit))
	if policy == nil || left == nil {
		return
	}
	c.quota(Quota{
		Limit: policy["q"], Window: time.Duration(policy["w"]) * time.Second, Remaining: left["r"], Reset: time.Duration(left["t"]) * time.Second,
	})
}

// parameters returns the integer parameters of the only item in a header, such as "key";q=50;w=1 (RFC 9651). It returns nil
// without an item.
func parameters(v string) map[string]int {
	_, rest, ok := strings.Cut(v, ";")
	if !ok {
		return nil
	}
	out := map[string]int{}
	for part := range strings.SplitSeq(rest, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if n, err := strconv.Atoi(value); err == nil {
			out[name] = n
		}
	}
	return out
}
