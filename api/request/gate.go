// Package request takes requests in: it admits them by their route's class, bounds what they may hold, reads their bodies
// and decodes them strictly. It knows the route table's properties and no handler.
package request

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"herald/pkg/contract"
	"herald/pkg/message"
)

// Limits are what a Gate admits.
type Limits struct {
	InFlight int           // requests of the class AdmitRequest at a time
	DryRuns  int           // dry runs at a time; below 1: 1
	Body     ReadLimits    // of JSON bodies
	Upload   ReadLimits    // of the class AdmitUpload
	Write    time.Duration // for one write of a stream; 0: 30 s
}

// Gate bounds what the API does at a time. A request that finds no place waits a moment and is then told to come back,
// which costs next to nothing (load shedding): so what is under way stays as fast as it is, and memory does not grow. A
// body is read before its request takes a place, so a slow client holds none, and only the memory of what it has sent.
//
// One API key holds at most a quarter of the places, of the memory and of the waiting bulks, and half of the imports. The
// keyless mode has one caller, so none is shut out by another, and no share is kept from it. Requests of routes without a
// key count as one caller, so a flood of them leaves three quarters to the callers with keys.
type Gate struct {
	Limits Limits // may be changed until the first request

	requests, uploads, downloads *places
	waits                        *places // bulk sends that wait for their figures; they hold no other place
	dryRuns                      *places
	sends                        map[message.ChannelType]*places // of requests, at most these send singles of a type: no provider takes all

	mu      sync.Mutex
	memory  int64               // what bodies and their trees take
	callers map[string]*account // of API keys that have a request here, by their ids
}

// account is what one caller holds.
type account struct {
	requests int // that are here at all
	memory   int64
}

const (
	gateWait     = 10 * time.Millisecond // for a place
	maxMemory    = 112 << 20             // bytes of bodies and of what is made of them, of requests under way and of slow clients
	readingCost  = 32 << 10              // bytes that a request with a body counts for beside it: its connection and stack
	maxUploads   = 4                     // files at a time; each is read as fast as it is written
	keyUploads   = 2                     // of one key
	maxDownloads = 8                     // answers at a time that may take minutes
	keyDownloads = 2                     // of one key
	maxWaits     = 2_000
	keyDryRuns   = 2 // of one key at a time
	keyShare     = 4 // the part of everything else that one key may hold
	comeBack     = time.Second
	streamWrite  = 30 * time.Second // for one write of a stream
	dryRunAgain  = 5 * time.Second
	firstRead    = 4 << 10
	trusted      = 256 << 10 // bytes of a body after which its announced length is believed
)

// anonymous is the caller of all requests of routes that take no API key.
const anonymous = "without a key"

// NewGate makes a Gate. Read limits that are zero are those of the product.
func NewGate(l Limits) *Gate {
	if l.Body == (ReadLimits{}) {
		l.Body = bodyLimits
	}
	if l.Upload == (ReadLimits{}) {
		l.Upload = uploadLimits
	}
	if l.Write == 0 {
		l.Write = streamWrite
	}
	g := &Gate{
		Limits:    l,
		requests:  newPlaces(l.InFlight, l.InFlight/keyShare, errBusy, errShare),
		uploads:   newPlaces(maxUploads, keyUploads, errBusy, errUploads),
		downloads: newPlaces(maxDownloads, keyDownloads, errBusy, errDownloads),
		waits:     newPlaces(maxWaits, maxWaits/keyShare, errBusy, errShare),
		dryRuns:   newPlaces(l.DryRuns, keyDryRuns, errDryRuns, errKeyDryRuns),
		sends:     map[message.ChannelType]*places{}, callers: map[string]*account{},
	}
	g.requests.timeout = gateWait
	g.dryRuns.keyless = true
	for _, t := range message.ChannelTypes {
		g.sends[t] = newPlaces(l.InFlight/2, l.InFlight, errBusy, errShare)
	}
	return g
}

// again makes an error that tells a caller to come back after a time.
func again(code message.Code, after time.Duration, msg string) *message.Error {
	return &message.Error{Code: code, Message: msg, RetryAfter: after}
}

var (
	errBusy       = again(message.CodeUnavailable, comeBack, "too many requests are under way; come back in a moment")
	errShare      = again(message.CodeThrottled, comeBack, "too many requests of this API key are under way: it may hold a quarter of the API; come back in a moment")
	errUploads    = again(message.CodeThrottled, comeBack, "this API key has 2 imports under way, which is as many as it may; come back when one is done")
	errDownloads  = again(message.CodeThrottled, comeBack, "this API key has 2 downloads under way, which is as many as it may; come back when one is done")
	errDryRuns    = again(message.CodeUnavailable, dryRunAgain, "too many dry runs are under way; come back in a moment")
	errKeyDryRuns = again(message.CodeThrottled, dryRunAgain, "at most 2 dry runs of an API key are made at a time; come back when one of them has ended")
)

// Busy is the error of a request that is told to come back because too many are under way.
func Busy() error { return errBusy }

// Shed reports whether an error tells a request to come back because of what is under way. Nothing was done for it.
func Shed(err error) bool {
	return errors.Is(err, errBusy) || errors.Is(err, errShare) || errors.Is(err, errUploads) || errors.Is(err, errDownloads)
}

// shareError is the error of a caller that has its share. Requests without a key are told no more than that the API is
// busy: the share is not their sender's own.
func shareError(caller string, share *message.Error) error {
	if caller == anonymous {
		return errBusy
	}
	return share
}

// Usage is what requests hold of a Gate at a moment.
type Usage struct {
	Requests, Uploads, Downloads, Waits, DryRuns int   // places
	Memory                                       int64 // bytes of bodies and of what is made of them
	Callers                                      int   // API keys with a request here
}

// Usage returns what requests hold now.
func (g *Gate) Usage() Usage {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Usage{
		Requests: g.requests.used(), Uploads: g.uploads.used(), Downloads: g.downloads.used(), Waits: g.waits.used(), DryRuns: g.dryRuns.used(),
		Memory: g.memory, Callers: len(g.callers),
	}
}

// Grant is what one request holds of the gate. It belongs to the request's goroutine.
type Grant struct {
	gate     *Gate
	caller   string
	account  *account // nil in the keyless mode
	memory   int64
	release  func() // gives its place back; nil when it has none
	body     []byte
	complete bool // the body was read to its end
}

// grantKey is the key of a request's Grant in its context.
const grantKey = "grant"

// GrantOf returns what a request holds, nil before it is admitted.
func GrantOf(c echo.Context) *Grant {
	g, _ := c.Get(grantKey).(*Grant)
	return g
}

func (g *Gate) grant(caller string) *Grant {
	v := &Grant{gate: g, caller: caller}
	if caller != "" {
		g.mu.Lock()
		defer g.mu.Unlock()
		if v.account = g.callers[caller]; v.account == nil {
			v.account = &account{}
			g.callers[caller] = v.account
		}
		v.account.requests++
	}
	return v
}

// end gives everything back.
func (v *Grant) end() {
	v.Leave()
	v.ReleaseMemory()
	if v.account != nil {
		v.gate.mu.Lock()
		defer v.gate.mu.Unlock()
		if v.account.requests--; v.account.requests == 0 {
			delete(v.gate.callers, v.caller)
		}
	}
}

// Reserve counts memory as held, or says why it may not be.
func (v *Grant) Reserve(bytes int64) error {
	v.gate.mu.Lock()
	defer v.gate.mu.Unlock()
	switch {
	case v.account != nil && v.account.memory+bytes > maxMemory/keyShare:
		return shareError(v.caller, errShare)
	case v.gate.memory+bytes > maxMemory:
		return errBusy
	}
	v.memory += bytes
	v.gate.memory += bytes
	if v.account != nil {
		v.account.memory += bytes
	}
	return nil
}

// ReleaseMemory gives the memory back: the request is done with its body.
func (v *Grant) ReleaseMemory() {
	v.body = nil
	v.gate.mu.Lock()
	defer v.gate.mu.Unlock()
	v.gate.memory -= v.memory
	if v.account != nil {
		v.account.memory -= v.memory
	}
	v.memory = 0
}

// enter takes one place. A request has one at a time.
func (v *Grant) enter(c echo.Context, p *places) (err error) {
	v.release, err = p.take(c.Request().Context(), v.caller)
	return err
}

// Wait takes a place among the bulk sends that wait for their figures, in exchange for the request's own.
func (v *Grant) Wait(c echo.Context) error {
	v.Leave()
	return v.enter(c, v.gate.waits)
}

// Leave gives the request's place to another, while it only waits or when it ends.
func (v *Grant) Leave() {
	if v.release != nil {
		v.release()
		v.release = nil
	}
}

// Body returns the request's body, which was read when it was admitted.
func (v *Grant) Body() []byte { return v.body }

// EnterSend takes one of the places of singles of a type, and returns how to give it back.
func (g *Gate) EnterSend(ctx context.Context, t message.ChannelType) (leave func(), err error) {
	return g.sends[t].take(ctx, "")
}

// EnterDryRun lets a dry run in, and returns how to end it. Dry runs are few: each may keep a connection for audiences for
// its whole time, so in all there are fewer than there are such connections.
func (g *Gate) EnterDryRun(c echo.Context) (leave func(), err error) {
	return g.dryRuns.take(c.Request().Context(), Caller(c))
}

// classOf returns the places of a route's class, nil when its requests need none.
func (g *Gate) classOf(a contract.Admission) *places {
	switch a {
	case contract.AdmitUpload:
		return g.uploads
	case contract.AdmitDownload:
		return g.downloads
	case contract.AdmitAlways:
		return nil
	}
	return g.requests
}

// Admit lets a request of a route in or tells it to come back. Its key's scope is looked at first: a request that may not
// be made has none of its body read.
func (g *Gate) Admit(r contract.Route, next echo.HandlerFunc) echo.HandlerFunc {
	caller := func(echo.Context) string { return anonymous }
	if r.Access == contract.Keyed {
		caller = Caller
		if r.Query == nil {
			next = withoutQuery(next)
		}
	}
	if class := g.classOf(r.Admission); class != nil {
		next = g.admit(r, class, caller, next)
	}
	if r.Access != contract.Keyed {
		return next
	}
	return func(c echo.Context) error {
		if err := allowed(c, r.Scope); err != nil {
			return err
		}
		return next(c)
	}
}

// admit gives a request what it may hold until its handler returns.
func (g *Gate) admit(r contract.Route, class *places, caller func(echo.Context) string, next echo.HandlerFunc) echo.HandlerFunc {
	limit := r.BodyLimit()
	return func(c echo.Context) error {
		if c.Request().ContentLength > limit {
			return tooLarge(limit)
		}
		v := g.grant(caller(c))
		defer v.end()
		c.Set(grantKey, v)
		if err := v.readBody(c, &r, limit); err != nil {
			return err
		}
		if err := v.enter(c, class); err != nil {
			return err
		}
		return next(c)
	}
}

// readBody reads the body of a request into memory, unless its handler reads it as a stream or takes none.
func (v *Grant) readBody(c echo.Context, r *contract.Route, limit int64) error {
	switch {
	case r.Admission == contract.AdmitUpload:
		return nil
	case !r.HasBody():
		Abandon(c, nil)
		return nil
	}
	return v.read(c, limit)
}

// read reads a request's body into memory, for ReadJSON.
func (v *Grant) read(c echo.Context, limit int64) error {
	r := c.Request()
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if err := v.Reserve(readingCost); err != nil {
		return err
	}
	body := newBodyReader(c, limit, v.gate.Limits.Body)
	most := int(limit)
	if r.ContentLength > 0 {
		most = int(r.ContentLength)
	}
	buf, counted := make([]byte, 0, min(firstRead, most+1)), 0
	for {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), roomFor(len(buf), most))
			copy(grown, buf)
			buf = grown
		}
		if grown := cap(buf) - counted; grown > 0 {
			if err := v.Reserve(int64(grown)); err != nil {
				return err
			}
			counted += grown
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case isEnd(err):
			v.body, v.complete = buf, true
			return nil
		case err != nil:
			return err
		}
	}
}

// roomFor is how much room a body gets of which so much has come and so much may come: at first four times what has come,
// since what is announced need not come; then all, since every larger copy leaves a smaller one to the collector.
func roomFor(come, most int) int {
	if come >= trusted {
		return most + 1
	}
	return min(4*come, most+1)
}
