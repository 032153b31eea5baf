// Package request admits and decodes requests. A Gate bounds places, memory and body rates by the class of the route
// (load shedding); Object and Query decode strictly, with the bounds that the contract's struct tags declare; Stream writes
// long answers. It reads the properties of contract.Route and must not know handlers or the domain's services.
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

// Limits configure a Gate.
type Limits struct {
	InFlight int           // concurrent requests of the class AdmitRequest
	DryRuns  int           // concurrent dry runs; at least 1
	Body     ReadLimits    // of JSON bodies
	Upload   ReadLimits    // of the class AdmitUpload
	Write    time.Duration // for one write of a stream; 0: 30 s
}

// Gate bounds concurrent work. A request without a place waits up to 10 ms and is then rejected with 503 and Retry-After
// (load shedding), so admitted requests stay fast and memory stays bounded. A body is read before its request takes a
// place: a slow client holds only the memory of what it has sent.
//
// One API key holds at most a quarter of the places, of the memory and of the waiting bulks, and half of the imports. The
// keyless mode has a single caller, which has no share. Requests of routes without a key share one caller, so a flood of
// them leaves three quarters to callers with keys.
type Gate struct {
	Limits Limits // read-only after the first request

	requests, uploads, downloads *places
	waits                        *places // bulk sends that wait for figures; they hold no other place
	dryRuns                      *places
	sends                        map[message.ChannelType]*places // singles by type: half of the requests, so a provider that hangs leaves places for other types

	mu      sync.Mutex
	memory  int64               // bytes reserved for bodies, their trees and attachments
	files   int64               // of them for attachments
	callers map[string]*account // callers with a request in progress, by key id
}

// account sums what the requests of one caller hold.
type account struct {
	requests int // in progress
	memory   int64
	files    int64 // of attachments, beside memory
}

const (
	gateWait     = 10 * time.Millisecond // for a place of the class AdmitRequest
	maxMemory    = 112 << 20             // bytes of all bodies, of the trees made from them, and of attachments
	maxFiles     = 64 << 20              // bytes of all attachments, which are part of maxMemory: three requests of the full size
	keyFiles     = 24 << 20              // bytes of attachments of one key: those of the largest request, and the unused ends of their pieces
	readingCost  = 32 << 10              // bytes reserved for the connection and stack of a request with a body
	maxUploads   = 4                     // concurrent imports
	keyUploads   = 2                     // per key
	maxDownloads = 8                     // concurrent streamed answers
	keyDownloads = 2                     // per key
	maxWaits     = 2_000
	keyDryRuns   = 2 // per key
	keyShare     = 4 // one key may hold 1/keyShare of everything else
	comeBack     = time.Second
	streamWrite  = 30 * time.Second // for one write of a stream
	dryRunAgain  = 5 * time.Second
	firstRead    = 4 << 10
	trusted      = 256 << 10 // bytes of a body after which its Content-Length is trusted
)

// anonymous is the caller id of requests of routes without an API key.
const anonymous = "without a key"

// NewGate returns a Gate. Zero limits of reading and writing take the defaults.
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

// retryLater returns an error with Retry-After.
func retryLater(code message.Code, after time.Duration, msg string) *message.Error {
	return &message.Error{Code: code, Message: msg, RetryAfter: after}
}

var (
	errBusy       = retryLater(message.CodeUnavailable, comeBack, "too many requests in progress; retry after a moment")
	errShare      = retryLater(message.CodeThrottled, comeBack, "too many requests of this API key in progress: one key may hold a quarter of the API; retry after a moment")
	errUploads    = retryLater(message.CodeThrottled, comeBack, "this API key has 2 imports in progress, the maximum; retry when one has ended")
	errDownloads  = retryLater(message.CodeThrottled, comeBack, "this API key has 2 downloads in progress, the maximum; retry when one has ended")
	errDryRuns    = retryLater(message.CodeUnavailable, dryRunAgain, "too many dry runs in progress; retry after a moment")
	errKeyDryRuns = retryLater(message.CodeThrottled, dryRunAgain, "an API key may have at most 2 dry runs in progress; retry when one has ended")
)

// Busy returns the error of a request that is rejected under overload.
func Busy() error { return errBusy }

// Shed reports whether err rejects a request because of load. The request had no effect and no query.
func Shed(err error) bool {
	return errors.Is(err, errBusy) || errors.Is(err, errShare) || errors.Is(err, errUploads) || errors.Is(err, errDownloads)
}

// shareError returns the error of a caller that holds its share. Requests without a key get errBusy: their share is not
// the sender's own.
func shareError(caller string, share *message.Error) error {
	if caller == anonymous {
		return errBusy
	}
	return share
}

// Usage is a snapshot of what requests hold.
type Usage struct {
	Requests, Uploads, Downloads, Waits, DryRuns int   // places
	Memory                                       int64 // bytes of bodies and of what is made of them
	Callers                                      int   // callers with a request in progress
}

// Usage returns a snapshot of what requests hold.
func (g *Gate) Usage() Usage {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Usage{
		Requests: g.requests.used(), Uploads: g.uploads.used(), Downloads: g.downloads.used(), Waits: g.waits.used(), DryRuns: g.dryRuns.used(),
		Memory: g.memory, Callers: len(g.callers),
	}
}

// Grant is what one request holds of the gate. Only the request's goroutine uses it.
type Grant struct {
	gate     *Gate
	caller   string
	account  *account // nil in the keyless mode
	memory   int64
	files    int64  // bytes reserved for attachments
	release  func() // returns its place; nil without a place
	body     []byte
	complete bool // the body was read to its end

	extractor *extractor // has taken the attachments out of the body; nil for a short body
}

// grantKey is the context key of a request's Grant.
const grantKey = "grant"

// GrantOf returns the Grant of a request, nil before its admission.
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

// end releases everything.
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

// Reserve reserves memory until the request ends or calls ReleaseMemory. It returns a message.Error throttled when the
// caller's share is used up, unavailable when all memory is.
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

// reserveFile is Reserve for the bytes of attachments. They do not count to the share of the caller: the largest request would exceed
// it, so it could never be sent. A caller may hold the attachments of one such request instead.
func (v *Grant) reserveFile(bytes int64) error {
	v.gate.mu.Lock()
	defer v.gate.mu.Unlock()
	switch {
	case v.account != nil && v.account.files+bytes > keyFiles:
		return shareError(v.caller, errShare)
	case v.gate.files+bytes > maxFiles, v.gate.memory+bytes > maxMemory:
		return errBusy
	}
	v.files += bytes
	v.gate.files += bytes
	v.gate.memory += bytes
	if v.account != nil {
		v.account.files += bytes
	}
	return nil
}

// file returns the file that was taken out of the body as the element with an index; nil for none.
func (v *Grant) file(index int) *File {
	if v.extractor == nil {
		return nil
	}
	for _, f := range v.extractor.files {
		if f.index == index {
			return f
		}
	}
	return nil
}

// ReleaseMemory releases the body and everything reserved.
func (v *Grant) ReleaseMemory() {
	v.body, v.extractor = nil, nil
	v.gate.mu.Lock()
	defer v.gate.mu.Unlock()
	v.gate.memory -= v.memory + v.files
	v.gate.files -= v.files
	if v.account != nil {
		v.account.memory -= v.memory
		v.account.files -= v.files
	}
	v.memory, v.files = 0, 0
}

// enter takes a place. A request holds at most one.
func (v *Grant) enter(c echo.Context, p *places) (err error) {
	v.release, err = p.take(c.Request().Context(), v.caller)
	return err
}

// Wait exchanges the request's place for one of the bulk sends that wait for figures.
func (v *Grant) Wait(c echo.Context) error {
	v.Leave()
	return v.enter(c, v.gate.waits)
}

// Leave releases the request's place.
func (v *Grant) Leave() {
	if v.release != nil {
		v.release()
		v.release = nil
	}
}

// Body returns the body, which was read at admission.
func (v *Grant) Body() []byte { return v.body }

// EnterSend takes one of the places of singles of a type. The caller must call leave.
func (g *Gate) EnterSend(ctx context.Context, t message.ChannelType) (leave func(), err error) {
	return g.sends[t].take(ctx, "")
}

// EnterDryRun takes a place of a dry run. The caller must call leave. A dry run may hold a database connection of the
// audience pool for its whole time, so Limits.DryRuns is below the size of that pool.
func (g *Gate) EnterDryRun(c echo.Context) (leave func(), err error) {
	return g.dryRuns.take(c.Request().Context(), Caller(c))
}

// classOf returns the places of a class, nil for AdmitAlways.
func (g *Gate) classOf(a contract.Admission) *places {
	switch a {
	case contract.AdmitUpload:
		return g.uploads
	case contract.AdmitDownload:
		return g.downloads
	case contract.AdmitAlways:
		return nil
	case contract.AdmitRequest:
	}
	return g.requests
}

// Admit wraps the handler of a route with its scope, its bounds and its admission class. The scope is checked first, so the
// body of a forbidden request is never read.
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

// admit holds a request's memory and place until its handler returns.
func (g *Gate) admit(r contract.Route, class *places, caller func(echo.Context) string, next echo.HandlerFunc) echo.HandlerFunc {
	limit := r.TransferLimit()
	return func(c echo.Context) error {
		if c.Request().ContentLength > limit {
			return tooLarge(limit, r.MaxFiles)
		}
		if _, err := isPacked(c); err != nil {
			return err
		}
		v := g.grant(caller(c))
		defer v.end()
		c.Set(grantKey, v)
		if err := v.readBody(c, &r); err != nil {
			return err
		}
		if err := v.enter(c, class); err != nil {
			return err
		}
		return next(c)
	}
}

// readBody reads the body into memory, unless the handler streams it or the route has none.
func (v *Grant) readBody(c echo.Context, r *contract.Route) error {
	switch {
	case r.Admission == contract.AdmitUpload:
		return nil
	case !r.HasBody():
		Abandon(c, nil)
		return nil
	}
	return v.read(c, r)
}

// read reads the body into memory, without its files if it is long. It reserves memory before it allocates.
func (v *Grant) read(c echo.Context, route *contract.Route) error {
	r := c.Request()
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if err := v.Reserve(readingCost); err != nil {
		return err
	}
	body := newBodyReader(c, route.TransferLimit(), v.gate.Limits.Body)
	most := int(route.BodyLimit())
	if r.ContentLength > 0 && !body.packed {
		most = min(int(r.ContentLength), most)
	}
	buf, counted := make([]byte, 0, min(firstRead, most+1)), 0
	for {
		if v.needsRoom(buf, most+1) {
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
		come, ferr := v.takeFiles(route, body, buf[:len(buf)+n], n)
		if buf = come; ferr != nil {
			return ferr
		}
		switch {
		case len(buf) > most:
			return tooLarge(route.BodyLimit(), route.MaxFiles)
		case isEnd(err):
			v.body, v.complete = buf, true
			return nil
		case err != nil:
			return err
		}
	}
}

// needsRoom reports whether the buffer of a body must grow. While files are taken out of it, it must not fill with what remains:
// reads into a small rest of it would be short.
func (v *Grant) needsRoom(buf []byte, full int) bool {
	free := cap(buf) - len(buf)
	return free == 0 || v.extractor != nil && free < scanAfter/4 && cap(buf) < full
}

// takeFiles takes the files out of a body of which the last n bytes have just come, and returns what remains of it.
func (v *Grant) takeFiles(route *contract.Route, body *BodyReader, buf []byte, n int) ([]byte, error) {
	if route.MaxFiles == 0 || v.extractor == nil && len(buf) < scanAfter {
		return buf, nil
	}
	from := len(buf) - n
	if v.extractor == nil {
		v.extractor, from = &extractor{room: fileRoom{left: route.MaxFiles, reserve: v.reserveFile}}, 0
	}
	rest, err := v.extractor.filter(buf[from:])
	if err != nil {
		return nil, err
	}
	body.extend(len(buf) - from - len(rest))
	return buf[:from+len(rest)], nil
}

// roomFor returns the next capacity of a body's buffer. Content-Length is a claim, so the buffer grows fourfold until
// enough bytes came to trust it; then it gets its full size, since each copy leaves garbage.
func roomFor(come, most int) int {
	if come >= trusted {
		return most + 1
	}
	return min(4*come, most+1)
}
