// Package simulator is a server with the HTTP APIs of the vendors, as far as they send messages: bodies, headers, error codes and
// recipients that stand for outcomes. A script adds faults and latency, and the simulator records the accepted messages. Adapters
// call it in tests, in benchmarks and in the embedded mode. The table vendors has one entry per vendor. The package knows nothing of
// Herald except the custom argument that holds a message id.
package simulator

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/valyala/fasthttp"
)

// Fault is an outcome of a call other than acceptance.
type Fault string

// The faults that a script can name. Those that end in After accept the message first.
const (
	None        Fault = ""
	Throttle    Fault = "throttle"    // the vendor's 429
	Unavailable Fault = "unavailable" // 503 with Retry-After
	ServerError Fault = "500"
	ErrorAfter  Fault = "500_after"
	Unauthorize Fault = "unauthorized" // the vendor's answer to a dead credential
	Forbid      Fault = "forbidden"    // the vendor's answer to a sender that is not allowed
	Refuse      Fault = "refused"      // the vendor's answer to an invalid recipient
	Quote       Fault = "quote"        // a refusal that quotes the recipient and the credentials
	HTML        Fault = "html"         // a proxy's 502 page
	Empty       Fault = "empty"        // 200 without a body
	Reset       Fault = "reset"        // the connection breaks before an answer
	ResetAfter  Fault = "reset_after"
	Hang        Fault = "hang" // no answer until the caller closes the connection
	HangAfter   Fault = "hang_after"
)

// Rule scripts a fault. The first rule that matches a call applies.
type Rule struct {
	Provider  string `json:"provider"`  // empty: any
	Recipient string `json:"recipient"` // part of the recipient; empty: any
	Fault     Fault  `json:"fault"`
	Times     int    `json:"times"`    // number of calls to which it applies; 0: all
	RetryIn   int    `json:"retry_in"` // seconds in Retry-After; 0: no header

	Refusal *Refusal `json:"refusal"` // the answer instead of that of Fault; nil: none
}

// Refusal is an error of a vendor with a chosen code, in the vendor's own form. A vendor without one of the members leaves it
// out: SendGrid has fields, Twilio has codes, Meta has codes and subcodes.
type Refusal struct {
	Status  int    `json:"status"` // of HTTP; 0: 400
	Code    int    `json:"code"`
	Subcode int    `json:"subcode"`
	Text    string `json:"text"`
	Field   string `json:"field"`
}

func (r Refusal) status() int { return cmp.Or(r.Status, fasthttp.StatusBadRequest) }

// Accepted is one message that a vendor accepted.
type Accepted struct {
	Provider          string            `json:"provider"`
	Recipient         string            `json:"recipient"`
	Part              string            `json:"part,omitempty"` // Instagram: text or image
	MessageID         string            `json:"message_id,omitempty"`
	ProviderMessageID string            `json:"provider_message_id"`
	Subject           string            `json:"subject,omitempty"`
	Text              string            `json:"text,omitempty"`
	From              string            `json:"from,omitempty"`
	ReplyTo           string            `json:"reply_to,omitempty"`
	Headers           map[string]string `json:"headers,omitempty"`
	Attachments       []File            `json:"attachments,omitempty"`
	At                time.Time         `json:"at"`
}

// File is an attachment of an accepted message.
type File struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Size   int64  `json:"size"`   // bytes, decoded
	SHA256 string `json:"sha256"` // of the bytes, in hexadecimal
}

// copyKey identifies what a recipient must receive once: a message, or one part of it.
type copyKey struct{ provider, recipient, part string }

func (k copyKey) name() string { return strings.TrimRight(k.recipient+" "+k.part, " ") }

// Report sums up the accepted messages. Repeated has the recipients with more than one copy and their number of copies.
type Report struct {
	Accepted   int64            `json:"accepted"`
	Recipients int              `json:"recipients"`
	Repeated   map[string]int   `json:"repeated"`
	ByProvider map[string]int64 `json:"by_provider"`
	First      time.Time        `json:"first"`
	Last       time.Time        `json:"last"`
}

const maxRequest = 30 << 20 // bytes of a request: SendGrid's bound, the largest of the vendors'

const maxRecords = 20_000 // accepted messages that are kept in full; all are counted

// Simulator is the server. New makes one; the zero value is not usable. All methods are safe for concurrent use. It uses fasthttp,
// which needs a third of net/http's processor time, so that benchmarks measure Herald and not the simulator.
type Simulator struct {
	server  fasthttp.Server
	latency atomic.Int64 // nanoseconds before each answer
	serial  atomic.Int64

	mu      sync.Mutex
	rules   []Rule
	limits  map[string]*window
	counts  map[copyKey]int
	by      map[string]int64
	records []Accepted
	first   time.Time
	last    time.Time

	closing sync.Mutex
	closers map[io.Closer]struct{} // listeners and connections; nil after Close
	closed  chan struct{}
}

// New returns a Simulator that accepts every valid message without delay.
func New() *Simulator {
	s := &Simulator{limits: map[string]*window{}, counts: map[copyKey]int{}, by: map[string]int64{}, closers: map[io.Closer]struct{}{}, closed: make(chan struct{})}
	s.server = fasthttp.Server{Handler: s.handle, NoDefaultServerHeader: true, NoDefaultContentType: true, Logger: silent{}, MaxRequestBodySize: maxRequest}
	return s
}

// silent discards the server's log of broken connections: scripts break them.
type silent struct{}

func (silent) Printf(string, ...any) {}

// Serve answers on a listener until Close, and then returns nil. If the listener fails, it closes all connections and returns the
// error.
func (s *Simulator) Serve(l net.Listener) error {
	defer s.untrack(l)
	var serving sync.WaitGroup
	defer serving.Wait()
	for s.track(l) {
		c, err := l.Accept()
		if err != nil {
			if s.track(l) { // Close was not the cause
				s.Close()
				return err
			}
			return nil
		}
		serving.Go(func() {
			defer s.untrack(c)
			if s.track(c) {
				_ = s.server.ServeConn(c)
			}
		})
	}
	return nil
}

// Close ends Serve, and closes all connections with their calls in progress. It may be called more than once.
func (s *Simulator) Close() {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.closers == nil {
		return
	}
	close(s.closed)
	for c := range s.closers {
		_ = c.Close()
	}
	s.closers = nil
}

// track registers a closer with Close. It returns false after Close.
func (s *Simulator) track(c io.Closer) bool {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.closers == nil {
		return false
	}
	s.closers[c] = struct{}{}
	return true
}

func (s *Simulator) untrack(c io.Closer) {
	s.closing.Lock()
	defer s.closing.Unlock()
	_ = c.Close()
	delete(s.closers, c)
}

// handle routes a call to its vendor, or to the simulator's own routes.
func (s *Simulator) handle(c *fasthttp.RequestCtx) {
	method, path := string(c.Method()), strings.Split(string(c.Path()[1:]), "/")
	for i := range vendors {
		if v := &vendors[i]; method == fasthttp.MethodPost && matches(v.path, path) {
			s.call(c, v, path)
			return
		}
	}
	switch method + " " + strings.Join(path, "/") {
	case "GET simulator/report":
		writeJSON(c, fasthttp.StatusOK, s.Report())
	case "GET simulator/accepted":
		writeJSON(c, fasthttp.StatusOK, s.Accepted(string(c.QueryArgs().Peek("recipient"))))
	case "POST simulator/reset":
		s.Reset()
		c.SetStatusCode(fasthttp.StatusNoContent)
	case "POST simulator/script":
		s.script(c)
	default:
		c.Error("no such call", fasthttp.StatusNotFound)
	}
}

// window counts the calls to a vendor in the current second.
type window struct {
	max    int
	second int64 // Unix time
	calls  int
}

// SetLimit limits the messages that a vendor accepts per second. It refuses more with the vendor's answer for load. 0 removes the
// limit.
func (s *Simulator) SetLimit(provider string, perSecond int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if perSecond == 0 {
		delete(s.limits, provider)
		return
	}
	s.limits[provider] = &window{max: perSecond}
}

// overLimit counts a call and reports whether it exceeds the vendor's limit.
func (s *Simulator) overLimit(provider string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.limits[provider]
	if w == nil {
		return false
	}
	if now := time.Now().Unix(); now != w.second {
		w.second, w.calls = now, 0
	}
	w.calls++
	return w.calls > w.max
}

// Script replaces the rules.
func (s *Simulator) Script(rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append([]Rule(nil), rules...)
}

// SetLatency delays every answer.
func (s *Simulator) SetLatency(d time.Duration) { s.latency.Store(int64(d)) }

func (s *Simulator) script(c *fasthttp.RequestCtx) {
	var doc struct {
		LatencyMS int64  `json:"latency_ms"`
		Rules     []Rule `json:"rules"`
	}
	if err := readJSON(c, &doc); err != nil {
		c.Error(err.Error(), fasthttp.StatusBadRequest)
		return
	}
	s.SetLatency(time.Duration(doc.LatencyMS) * time.Millisecond)
	s.Script(doc.Rules...)
	c.SetStatusCode(fasthttp.StatusNoContent)
}

// Reset clears the record of accepted messages.
func (s *Simulator) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts, s.by, s.records = map[copyKey]int{}, map[string]int64{}, nil
	s.first, s.last = time.Time{}, time.Time{}
}

// Report sums up the messages accepted since the last Reset.
func (s *Simulator) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Report{Recipients: len(s.counts), Repeated: map[string]int{}, ByProvider: map[string]int64{}, First: s.first, Last: s.last}
	for p, n := range s.by {
		r.ByProvider[p] = n
		r.Accepted += n
	}
	for k, n := range s.counts {
		if n > 1 {
			r.Repeated[k.provider+" "+k.name()] = n
		}
	}
	return r
}

// Times returns the number of accepted messages of each recipient, over all vendors.
func (s *Simulator) Times() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	times := map[string]int{}
	for k, n := range s.counts {
		times[k.name()] += n
	}
	return times
}

// Accepted returns the latest accepted messages to a recipient, or to all for "".
func (s *Simulator) Accepted(recipient string) []Accepted {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Accepted{}
	for _, a := range s.records {
		if recipient == "" || a.Recipient == recipient {
			out = append(out, a)
		}
	}
	return out
}

func (s *Simulator) accept(a Accepted) {
	a.At = time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first.IsZero() {
		s.first = a.At
	}
	s.last = a.At
	s.by[a.Provider]++
	s.counts[copyKey{a.Provider, a.Recipient, a.Part}]++
	if len(s.records) >= maxRecords {
		s.records = append(s.records[:0], s.records[maxRecords/2:]...)
	}
	s.records = append(s.records, a)
}

// scripted returns the first rule that matches a call, or the zero rule.
func (s *Simulator) scripted(provider, recipient string) Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.rules {
		r := &s.rules[i]
		if (r.Provider != "" && r.Provider != provider) || !strings.Contains(recipient, r.Recipient) || r.Times < 0 {
			continue
		}
		if r.Times > 0 {
			if r.Times--; r.Times == 0 {
				r.Times = -1
			}
		}
		return *r
	}
	return Rule{}
}

// call answers one call to a vendor: latency, then the script, then the recipient's own outcome, then the vendor's limit.
func (s *Simulator) call(c *fasthttp.RequestCtx, v *vendor, path []string) {
	m, refusal := v.read(c, path)
	if refusal != nil {
		refusal(c)
		return
	}
	if d := time.Duration(s.latency.Load()); d > 0 {
		select {
		case <-time.After(d):
		case <-s.closed:
		}
	}
	rule := s.scripted(v.name, m.Recipient)
	if rule.RetryIn > 0 {
		retryAfter(c, rule.RetryIn)
	}
	if rule.Refusal != nil {
		v.refuse(*rule.Refusal)(c)
		return
	}
	fault := cmp.Or(rule.Fault, m.fault)
	if fault == None && s.overLimit(v.name) {
		fault = Throttle
	}
	m.Provider, m.ProviderMessageID = v.name, id(m.idPrefix, s.serial.Add(1))
	if fault == None || strings.HasSuffix(string(fault), "_after") {
		s.accept(m.Accepted)
	}
	if fault == None {
		m.ok(c, m.ProviderMessageID)
		return
	}
	if refuse := v.refusals[fault]; refuse != nil {
		refuse(c)
		return
	}
	fail := failures[fault]
	if fail == nil {
		fail = failures[ServerError] // a script may name anything
	}
	fail(c, v, m, rule.RetryIn)
}

// failures are the faults that do not depend on the vendor.
var failures = map[Fault]func(c *fasthttp.RequestCtx, v *vendor, m sent, retryIn int){
	ServerError: serverError,
	ErrorAfter:  serverError,
	Unavailable: func(c *fasthttp.RequestCtx, _ *vendor, _ sent, retryIn int) {
		retryAfter(c, max(retryIn, 1))
		c.SetStatusCode(fasthttp.StatusServiceUnavailable)
	},
	HTML: func(c *fasthttp.RequestCtx, _ *vendor, _ sent, _ int) {
		c.SetContentType("text/html")
		c.SetStatusCode(fasthttp.StatusBadGateway)
		c.SetBodyString("<html><h1>502 Bad Gateway</h1></html>")
	},
	Quote: func(c *fasthttp.RequestCtx, v *vendor, m sent, _ int) {
		v.quote(fmt.Sprintf("The address %s was refused for %s", m.Recipient, authorization(c)))(c)
	},
	Empty:      func(c *fasthttp.RequestCtx, _ *vendor, _ sent, _ int) { c.SetStatusCode(fasthttp.StatusOK) },
	Reset:      reset,
	ResetAfter: reset,
	Hang:       hang,
	HangAfter:  hang,
}

func serverError(c *fasthttp.RequestCtx, _ *vendor, _ sent, _ int) {
	c.SetStatusCode(fasthttp.StatusInternalServerError)
}

func reset(c *fasthttp.RequestCtx, _ *vendor, _ sent, _ int) { _ = c.Conn().Close() }

// hang reads until the caller closes the connection.
func hang(c *fasthttp.RequestCtx, _ *vendor, _ sent, _ int) {
	_, _ = io.Copy(io.Discard, c.Conn())
	_ = c.Conn().Close()
}

func retryAfter(c *fasthttp.RequestCtx, seconds int) {
	c.Response.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(seconds))
}

func authorization(c *fasthttp.RequestCtx) string {
	return string(c.Request.Header.Peek(fasthttp.HeaderAuthorization))
}

// readJSON decodes a body with the decoder proposed as encoding/json/v2, which is more than twice as fast as encoding/json.
func readJSON(c *fasthttp.RequestCtx, into any) error { return jsonv2.Unmarshal(c.PostBody(), into) }

func writeJSON(c *fasthttp.RequestCtx, status int, v any) {
	c.SetContentType("application/json")
	c.SetStatusCode(status)
	_ = json.NewEncoder(c).Encode(v)
}

func id(prefix string, n int64) string {
	digits := strconv.FormatInt(n, 16)
	return prefix + strings.Repeat("0", idDigits-len(digits)) + digits
}

const idDigits = 32
