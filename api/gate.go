package api

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"herald/pkg/message"
)

// gate bounds what the API does at a time. A request that finds no place waits a moment and is then told to come back,
// which costs next to nothing (load shedding): so what is under way stays as fast as it is, and memory does not grow. A
// body is read before its request takes a place, so a slow client holds none, and only the memory of what it has sent.
//
// One API key holds at most a quarter of the places, of the memory and of the waiting bulks, and half of the imports. The
// keyless mode has one caller, so none is shut out by another, and no share is kept from it.
type gate struct {
	places  chan struct{}
	sends   map[message.ChannelType]chan struct{} // of the places, at most these send singles of a type: no provider takes all
	imports chan struct{}
	waits   chan struct{} // bulk sends that wait for their figures; they hold no place
	paces   map[bool]pace // of bodies, true: of imports

	mu      sync.Mutex
	memory  int64               // what bodies and their trees take
	callers map[string]*account // of API keys that have a request here, by their ids

	dryRuns *dryRuns
}

// account is what one API key holds.
type account struct {
	requests               int // that are here at all
	places, imports, waits int
	memory                 int64
}

const (
	gateWait    = 10 * time.Millisecond // for a place
	maxMemory   = 112 << 20             // bytes of bodies and of what is made of them, of requests under way and of slow clients
	readingCost = 32 << 10              // bytes that a request with a body counts for beside it: its connection and stack
	maxImports  = 4                     // files at a time; each is read as fast as it is written
	keyImports  = 2                     // of one key
	maxWaits    = 2_000
	keyShare    = 4 // the part of everything else that one key may hold
	comeBack    = time.Second
	firstRead   = 4 << 10
	trusted     = 256 << 10 // bytes of a body after which its announced length is believed
)

func newGate(places, dryRuns int) *gate {
	g := &gate{
		dryRuns: newDryRuns(dryRuns),
		places:  make(chan struct{}, places), imports: make(chan struct{}, maxImports), waits: make(chan struct{}, maxWaits),
		sends: map[message.ChannelType]chan struct{}{}, callers: map[string]*account{},
		paces: map[bool]pace{false: bodyPace, true: importPace},
	}
	for _, t := range message.ChannelTypes {
		g.sends[t] = make(chan struct{}, max(places/2, 1))
	}
	return g
}

var (
	errBusy = &message.Error{
		Code: message.CodeUnavailable, Message: "too many requests are under way; come back in a moment", RetryAfter: comeBack,
	}
	errShare = &message.Error{
		Code: message.CodeThrottled, Message: "too many requests of this API key are under way: it may hold a quarter of the API; come back in a moment",
		RetryAfter: comeBack,
	}
	errImports = &message.Error{
		Code: message.CodeThrottled, Message: "this API key has 2 imports under way, which is as many as it may; come back when one is done", RetryAfter: comeBack,
	}
)

// shed says whether an error tells a request to come back because of what is under way. Nothing was done for it.
func shed(err error) bool {
	return errors.Is(err, errBusy) || errors.Is(err, errShare) || errors.Is(err, errImports)
}

// visit is what one request holds of the gate.
type visit struct {
	g       *gate
	key     string
	account *account // nil without a key
	memory  int64
	places  chan struct{} // where it has a place, nil when it has none
	held    *int          // the account's count of those places
	body    []byte
	whole   bool // the body was read to its end
}

// visitKey is under what a request carries its visit.
const visitKey = "visit"

func visitOf(c echo.Context) *visit {
	v, _ := c.Get(visitKey).(*visit)
	return v
}

func (g *gate) visit(key string) *visit {
	v := &visit{g: g, key: key}
	if key != "" {
		g.mu.Lock()
		defer g.mu.Unlock()
		if v.account = g.callers[key]; v.account == nil {
			v.account = &account{}
			g.callers[key] = v.account
		}
		v.account.requests++
	}
	return v
}

// end gives everything back.
func (v *visit) end() {
	v.leave()
	v.forget()
	if v.account != nil {
		v.g.mu.Lock()
		defer v.g.mu.Unlock()
		if v.account.requests--; v.account.requests == 0 {
			delete(v.g.callers, v.key)
		}
	}
}

// take counts memory as held, or says why it may not be.
func (v *visit) take(bytes int64) error {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	switch {
	case v.account != nil && v.account.memory+bytes > maxMemory/keyShare:
		return errShare
	case v.g.memory+bytes > maxMemory:
		return errBusy
	}
	v.memory += bytes
	v.g.memory += bytes
	if v.account != nil {
		v.account.memory += bytes
	}
	return nil
}

// forget gives back the memory: the request is done with its body.
func (v *visit) forget() {
	v.body = nil
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	v.g.memory -= v.memory
	if v.account != nil {
		v.account.memory -= v.memory
	}
	v.memory = 0
}

// enter takes one of places, waiting a moment for it. A request has one at a time.
func (v *visit) enter(places chan struct{}, patience time.Duration) error {
	if v.account != nil {
		if err := v.claim(places); err != nil {
			return err
		}
	}
	select {
	case places <- struct{}{}:
	default:
		if !waitFor(places, patience) {
			v.release()
			return errBusy
		}
	}
	v.places = places
	return nil
}

// waitFor takes a place within a time, or says false.
func waitFor(places chan struct{}, patience time.Duration) bool {
	if patience == 0 {
		return false
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return true
	case <-t.C:
		return false
	}
}

// claim counts a place as the key's, or says that it has its share.
func (v *visit) claim(places chan struct{}) error {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	count, most, full := &v.account.places, max(cap(places)/keyShare, 1), errShare
	switch places {
	case v.g.imports:
		count, most, full = &v.account.imports, keyImports, errImports
	case v.g.waits:
		count = &v.account.waits
	}
	if *count >= most {
		return full
	}
	*count++
	v.held = count
	return nil
}

func (v *visit) release() {
	if v.held != nil {
		v.g.mu.Lock()
		*v.held--
		v.g.mu.Unlock()
		v.held = nil
	}
}

// leave gives the request's place to another, while it only waits or when it ends.
func (v *visit) leave() {
	if v.places != nil {
		<-v.places
		v.places = nil
		v.release()
	}
}

// bodyLimit is how many bytes a route's body may have.
func bodyLimit(path string) int64 {
	switch path {
	case sendPath:
		return maxBody
	case importPath:
		return maxImport
	}
	return maxSmallBody
}

// admit lets a request of a route in or tells it to come back. Its key's scope is looked at first: a request that may not
// be made has none of its body read.
func (s *Server) admit(r route, next echo.HandlerFunc) echo.HandlerFunc {
	limit, op := bodyLimit(r.path), operations[r.method+" "+r.path]
	return func(c echo.Context) error {
		if err := allowed(c, r.scope); err != nil {
			return err
		}
		if c.Request().ContentLength > limit {
			return tooLarge(limit)
		}
		v := s.gate.visit(caller(c))
		defer v.end()
		c.Set(visitKey, v)
		places, patience := s.gate.places, gateWait
		if r.path == importPath {
			places, patience = s.gate.imports, 0
		} else if op.request == nil {
			abandon(c, nil)
		} else if err := v.read(c, limit); err != nil {
			return err
		}
		if err := v.enter(places, patience); err != nil {
			return err
		}
		return next(c)
	}
}

// read reads a request's body into memory, for readJSON.
func (v *visit) read(c echo.Context, limit int64) error {
	r := c.Request()
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if err := v.take(readingCost); err != nil {
		return err
	}
	body := paced(c, limit, v.g.paces[false])
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
			if err := v.take(int64(grown)); err != nil {
				return err
			}
			counted += grown
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case isEnd(err):
			v.body, v.whole = buf, true
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

// underAPI says whether a path needs a key.
func underAPI(path string) bool { return strings.HasPrefix(path, apiPrefix) }
