// Package simulator is the HTTP APIs of SendGrid, Twilio and Meta in one server, as far as sending goes: their bodies,
// headers and error codes, recipients that stand for outcomes, faults and latency by script, and a record of what was
// accepted. The real adapters talk to it in tests, in benchmarks and in the embedded mode. It knows nothing of Herald
// but the custom argument that carries a message id.
package simulator

import (
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

// The vendors.
const (
	SendGrid  = "sendgrid"
	Twilio    = "twilio"
	Instagram = "instagram"
)

// Fault is something that goes wrong with a call.
type Fault string

// The faults that can be scripted. Those that end in After accept the message first.
const (
	None        Fault = ""
	Throttle    Fault = "throttle"    // the vendor's 429
	Unavailable Fault = "unavailable" // 503 with Retry-After
	ServerError Fault = "500"
	ErrorAfter  Fault = "500_after"
	Unauthorize Fault = "unauthorized" // the vendor's answer to a dead credential
	Forbid      Fault = "forbidden"    // the vendor's answer to a sender that is not allowed
	Refuse      Fault = "refused"      // the vendor's answer to a recipient that is none
	Quote       Fault = "quote"        // a refusal whose words quote the recipient and the credentials
	HTML        Fault = "html"         // a proxy's 502 page
	Empty       Fault = "empty"        // 200 without a body
	Reset       Fault = "reset"        // the connection breaks before an answer
	ResetAfter  Fault = "reset_after"
	Hang        Fault = "hang" // no answer until the caller gives up
	HangAfter   Fault = "hang_after"
)

// Rule scripts a fault. The first rule that matches a call applies.
type Rule struct {
	Provider  string `json:"provider"`  // empty: any
	Recipient string `json:"recipient"` // what the recipient contains; empty: any
	Fault     Fault  `json:"fault"`
	Times     int    `json:"times"` // how often it applies; 0: always
	RetryIn   int    `json:"retry_in"`
}

// Accepted is one message that a vendor took.
type Accepted struct {
	Provider          string    `json:"provider"`
	Recipient         string    `json:"recipient"`
	Part              string    `json:"part,omitempty"` // Instagram: text or image
	MessageID         string    `json:"message_id,omitempty"`
	ProviderMessageID string    `json:"provider_message_id"`
	Subject           string    `json:"subject,omitempty"`
	Text              string    `json:"text,omitempty"`
	From              string    `json:"from,omitempty"`
	At                time.Time `json:"at"`
}

// whom is a recipient, or the part of a message to one, as a vendor knows them.
type whom struct{ provider, recipient, part string }

func (w whom) name() string { return strings.TrimRight(w.recipient+" "+w.part, " ") }

// Report sums up what was accepted. Repeated holds those who got the same thing more than once, and how often.
type Report struct {
	Accepted   int64            `json:"accepted"`
	Recipients int              `json:"recipients"`
	Repeated   map[string]int   `json:"repeated"`
	ByProvider map[string]int64 `json:"by_provider"`
	First      time.Time        `json:"first"`
	Last       time.Time        `json:"last"`
}

const keepRecords = 20_000 // of the latest accepted messages in full; all are counted

// Simulator is the server. Its zero value is not ready; use New. It is built on fasthttp, which asks a third of the processor
// time that net/http does: a benchmark's figures should not be the simulator's.
type Simulator struct {
	server  fasthttp.Server
	latency atomic.Int64 // nanoseconds before each answer
	serial  atomic.Int64

	mu      sync.Mutex
	rules   []Rule
	limits  map[string]*window
	counts  map[whom]int
	by      map[string]int64
	records []Accepted
	first   time.Time
	last    time.Time

	open sync.Mutex
	ends map[io.Closer]struct{} // listeners and connections; nil once it is closed
	over chan struct{}          // closed then
}

// New makes a Simulator that accepts everything at once.
func New() *Simulator {
	s := &Simulator{limits: map[string]*window{}, counts: map[whom]int{}, by: map[string]int64{}, ends: map[io.Closer]struct{}{}, over: make(chan struct{})}
	s.server = fasthttp.Server{Handler: s.handle, NoDefaultServerHeader: true, NoDefaultContentType: true, Logger: silent{}}
	return s
}

// silent drops what the server says of connections that break: most do by script.
type silent struct{}

func (silent) Printf(string, ...any) {}

// Serve answers on a listener until Close, or until the listener fails, which ends the connections too.
func (s *Simulator) Serve(l net.Listener) error {
	defer s.drop(l)
	var serving sync.WaitGroup
	defer serving.Wait()
	for s.keep(l) {
		c, err := l.Accept()
		if err != nil {
			if s.keep(l) { // it was not Close
				s.Close()
				return err
			}
			return nil
		}
		serving.Go(func() {
			defer s.drop(c)
			if s.keep(c) {
				_ = s.server.ServeConn(c)
			}
		})
	}
	return nil
}

// Close ends Serve and all connections, whatever is under way on them.
func (s *Simulator) Close() {
	s.open.Lock()
	defer s.open.Unlock()
	if s.ends == nil {
		return
	}
	close(s.over)
	for c := range s.ends {
		_ = c.Close()
	}
	s.ends = nil
}

// keep makes Close close something too, and says whether there is time left for it.
func (s *Simulator) keep(c io.Closer) bool {
	s.open.Lock()
	defer s.open.Unlock()
	if s.ends == nil {
		return false
	}
	s.ends[c] = struct{}{}
	return true
}

func (s *Simulator) drop(c io.Closer) {
	s.open.Lock()
	defer s.open.Unlock()
	_ = c.Close()
	delete(s.ends, c)
}

func (s *Simulator) handle(c *fasthttp.RequestCtx) {
	path := strings.Split(string(c.Path()[1:]), "/")
	is := func(method string, pattern ...string) bool {
		if string(c.Method()) != method || len(path) != len(pattern) {
			return false
		}
		for i, p := range pattern {
			if p != "*" && p != path[i] {
				return false
			}
		}
		return true
	}
	switch {
	case is("POST", "v3", "mail", "send"):
		s.sendGrid(c)
	case is("POST", "2010-04-01", "Accounts", "*", "Messages.json"):
		s.twilio(c, path[2])
	case is("POST", "*", "*", "messages"):
		s.instagram(c, path[1])
	case is("GET", "simulator", "report"):
		writeJSON(c, fasthttp.StatusOK, s.Report())
	case is("GET", "simulator", "accepted"):
		writeJSON(c, fasthttp.StatusOK, s.Accepted(string(c.QueryArgs().Peek("recipient"))))
	case is("POST", "simulator", "reset"):
		s.Reset()
		c.SetStatusCode(fasthttp.StatusNoContent)
	case is("POST", "simulator", "script"):
		s.script(c)
	default:
		c.Error("no such call", fasthttp.StatusNotFound)
	}
}

// window counts what a vendor took in the present second.
type window struct {
	most   int
	second int64
	taken  int
}

// SetLimit makes a vendor take so many messages a second, and refuse the rest with its 429. 0 ends that.
func (s *Simulator) SetLimit(provider string, perSecond int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if perSecond == 0 {
		delete(s.limits, provider)
		return
	}
	s.limits[provider] = &window{most: perSecond}
}

// tooMuch says whether a vendor has taken what it takes in a second.
func (s *Simulator) tooMuch(provider string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.limits[provider]
	if w == nil {
		return false
	}
	if now := time.Now().Unix(); now != w.second {
		w.second, w.taken = now, 0
	}
	w.taken++
	return w.taken > w.most
}

// Script replaces the rules.
func (s *Simulator) Script(rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append([]Rule(nil), rules...)
}

// SetLatency makes every answer wait.
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

// Reset forgets what was accepted.
func (s *Simulator) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts, s.by, s.records = map[whom]int{}, map[string]int64{}, nil
	s.first, s.last = time.Time{}, time.Time{}
}

// Report sums up what was accepted since the last reset.
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

// Times returns how often each recipient was accepted, by all vendors together.
func (s *Simulator) Times() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	times := map[string]int{}
	for k, n := range s.counts {
		times[k.name()] += n
	}
	return times
}

// Accepted returns the latest accepted messages, to one recipient or, with "", to all.
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
	s.counts[whom{a.Provider, a.Recipient, a.Part}]++
	if len(s.records) >= keepRecords {
		s.records = append(s.records[:0], s.records[keepRecords/2:]...)
	}
	s.records = append(s.records, a)
}

func (s *Simulator) next() int64 { return s.serial.Add(1) }

// fault returns what the script says about a call.
func (s *Simulator) fault(provider, recipient string) (Fault, int) {
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
		return r.Fault, r.RetryIn
	}
	return None, 0
}

// vendor is how one vendor says things.
type vendor struct {
	name     string
	ok       func(c *fasthttp.RequestCtx, id string)
	refusals map[Fault]func(*fasthttp.RequestCtx)
}

// answer applies latency and script to one valid call, and says yes if nothing speaks against it.
func (s *Simulator) answer(c *fasthttp.RequestCtx, v vendor, a Accepted, magic Fault) {
	if d := time.Duration(s.latency.Load()); d > 0 {
		select {
		case <-time.After(d):
		case <-s.over:
		}
	}
	fault, retryIn := s.fault(v.name, a.Recipient)
	if fault == None {
		fault = magic
	}
	if fault == None && s.tooMuch(v.name) {
		fault = Throttle
	}
	a.Provider = v.name
	switch fault {
	case None, ErrorAfter, ResetAfter, HangAfter:
		s.accept(a)
	}
	if retryIn > 0 {
		retryAfter(c, retryIn)
	}
	switch fault {
	case None:
		v.ok(c, a.ProviderMessageID)
	case ServerError, ErrorAfter:
		c.SetStatusCode(fasthttp.StatusInternalServerError)
	case Unavailable:
		retryAfter(c, max(retryIn, 1))
		c.SetStatusCode(fasthttp.StatusServiceUnavailable)
	case HTML:
		c.SetContentType("text/html")
		c.SetStatusCode(fasthttp.StatusBadGateway)
		c.SetBodyString("<html><h1>502 Bad Gateway</h1></html>")
	case Quote:
		quote(c, a.Recipient)
	case Empty:
		c.SetStatusCode(fasthttp.StatusOK)
	case Reset, ResetAfter:
		_ = c.Conn().Close()
	case Hang, HangAfter:
		_, _ = io.Copy(io.Discard, c.Conn()) // until the caller gives up
		_ = c.Conn().Close()
	default:
		v.refusals[fault](c)
	}
}

func retryAfter(c *fasthttp.RequestCtx, seconds int) {
	c.Response.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(seconds))
}

func authorization(c *fasthttp.RequestCtx) string {
	return string(c.Request.Header.Peek(fasthttp.HeaderAuthorization))
}

// quote refuses in the words of all three vendors at once.
func quote(c *fasthttp.RequestCtx, recipient string) {
	text := fmt.Sprintf("The address %s was refused for %s", recipient, authorization(c))
	writeJSON(c, fasthttp.StatusBadRequest, map[string]any{
		"errors": []any{map[string]any{"message": text, "field": "personalizations.0.to.0.email"}},
		"code":   21211, "message": text, "status": fasthttp.StatusBadRequest,
		"error": map[string]any{"message": text, "type": "OAuthException", "code": 100},
	})
}

// readJSON reads a body with the decoder that is to be encoding/json/v2: more than twice as fast as encoding/json.
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
