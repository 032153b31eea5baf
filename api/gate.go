package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"herald/pkg/message"
)

// gate bounds what the API does at a time. Who comes when all places are taken waits a moment and is then told to come
// back, which costs next to nothing: so what is under way stays as fast as it is, and memory does not grow. A body is
// read before its request takes a place, so a slow client holds none, and only the bytes that it has sent.
type gate struct {
	places  chan struct{}
	sends   map[message.Type]chan struct{} // of the places, at most these send singles of a type: no provider takes all
	imports chan struct{}
	waits   chan struct{} // bulk sends that wait for their figures; they hold no place
	dryRuns chan struct{} // each keeps a connection for audiences
	trying  callers       // dry runs of each key
	bodies  atomic.Int64  // bytes of bodies that are held
}

const (
	gateWait   = 10 * time.Millisecond // for a place
	maxBodies  = 256 << 20             // bytes of bodies at a time, of requests under way and of slow clients
	maxImports = 4                     // files at a time; each is read as fast as it is written
	maxWaits   = 2_000
	comeBack   = time.Second
	firstRead  = 4 << 10

	maxDryRuns  = 2 // of one key at a time
	dryRunAgain = 5 * time.Second
)

// callers counts what each key has under way.
type callers struct {
	most  int
	mu    sync.Mutex
	under map[string]int
}

// enter counts one more, and returns how to count it no more; false when the key has as many as it may.
func (c *callers) enter(key string) (leave func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.under[key] >= c.most {
		return nil, false
	}
	c.under[key]++
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.under[key]--; c.under[key] == 0 {
			delete(c.under, key)
		}
	}), true
}

// enterDryRun lets a dry run in: a few at a time of each key, and fewer in all than there are connections for audiences.
func (g *gate) enterDryRun(key string) (leave func(), err error) {
	leaveKey, ok := g.trying.enter(key)
	if !ok {
		return nil, &message.Error{
			Code: message.CodeThrottled, RetryAfter: dryRunAgain,
			Message: fmt.Sprintf("at most %d dry runs of an API key are made at a time; come back when one of them has ended", maxDryRuns),
		}
	}
	leavePlace, ok := enter(g.dryRuns, 0)
	if !ok {
		leaveKey()
		return nil, &message.Error{Code: message.CodeUnavailable, RetryAfter: dryRunAgain, Message: "too many dry runs are under way; come back in a moment"}
	}
	return func() {
		leavePlace()
		leaveKey()
	}, nil
}

func newGate(places, dryRuns int) *gate {
	g := &gate{
		dryRuns: make(chan struct{}, max(dryRuns, 1)), trying: callers{most: maxDryRuns, under: map[string]int{}},
		places: make(chan struct{}, places), imports: make(chan struct{}, maxImports), waits: make(chan struct{}, maxWaits),
		sends: map[message.Type]chan struct{}{},
	}
	for _, t := range message.Types {
		g.sends[t] = make(chan struct{}, max(places/2, 1))
	}
	return g
}

var errBusy = &message.Error{
	Code: message.CodeUnavailable, Message: "too many requests are under way; come back in a moment", RetryAfter: comeBack,
}

// enter takes a place, waiting a moment for it, and returns how to leave it, which may be called twice.
func enter(places chan struct{}, patience time.Duration) (leave func(), ok bool) {
	select {
	case places <- struct{}{}:
	default:
		if patience == 0 {
			return nil, false
		}
		t := time.NewTimer(patience)
		defer t.Stop()
		select {
		case places <- struct{}{}:
		case <-t.C:
			return nil, false
		}
	}
	return sync.OnceFunc(func() { <-places }), true
}

// What a request carries.
const (
	placeKey = "place" // how to leave its place
	bodyKey  = "body"  // its body, read
)

// admit lets a request in or tells it to come back. Probes are always let in.
func (s *Server) admit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		path := c.Request().URL.Path
		if !strings.HasPrefix(path, "/api/") {
			return next(c)
		}
		places, patience := s.gate.places, gateWait
		if path == importPath {
			places, patience = s.gate.imports, 0
		} else {
			held, err := s.gate.hold(c)
			defer func() { s.gate.bodies.Add(-held) }()
			if err != nil {
				return err
			}
		}
		leave, ok := enter(places, patience)
		if !ok {
			return errBusy
		}
		defer leave()
		c.Set(placeKey, leave)
		return next(c)
	}
}

// leavePlace gives a request's place to another while it only waits.
func leavePlace(c echo.Context) {
	if leave, ok := c.Get(placeKey).(func()); ok {
		leave()
	}
}

// hold reads a request's body into memory, for readJSON, and returns how many bytes it counts for.
func (g *gate) hold(c echo.Context) (held int64, err error) {
	body := c.Request().Body
	if body == nil || body == http.NoBody {
		return 0, nil
	}
	r := http.MaxBytesReader(c.Response(), body, maxBody)
	buf := make([]byte, 0, firstRead)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		if grown := int64(cap(buf)) - held; grown > 0 {
			held += grown
			if g.bodies.Add(grown) > maxBodies {
				return held, errBusy
			}
		}
		n, rerr := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return held, readError(rerr, maxBody)
		}
	}
	c.Set(bodyKey, buf)
	return held, nil
}
