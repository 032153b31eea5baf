package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/labstack/echo/v4"

	"herald/pkg/message"
)

// pace is how fast a body must come. A token bucket bounds the time that the API waits for it: every second of waiting
// needs rate bytes, grace is the bucket's size. The time in which the API itself is at work does not count, but for most,
// which bounds everything.
type pace struct {
	rate  int64 // bytes a second
	grace time.Duration
	most  time.Duration
}

const minRate = 64 << 10 // bytes a second

var (
	bodyPace   = pace{rate: minRate, grace: 5 * time.Second, most: readTimeout}
	importPace = pace{rate: minRate, grace: 30 * time.Second, most: 15 * time.Minute}
)

// pacedReader reads a request's body at a pace. A body that is too slow ends with a message.Error too_slow that names the
// bound; the connection's read deadline sees to it, also while nothing comes at all.
type pacedReader struct {
	pace
	r      io.Reader
	ctl    *http.ResponseController
	limit  int64
	until  time.Time
	credit time.Duration
	err    error // the first one but the body's end
}

// paced makes the reader of a request's body.
func paced(c echo.Context, limit int64, p pace) *pacedReader {
	return &pacedReader{
		pace: p, r: http.MaxBytesReader(c.Response(), c.Request().Body, limit), ctl: http.NewResponseController(c.Response()),
		limit: limit, until: time.Now().Add(p.most), credit: p.grace,
	}
}

// Read implements io.Reader.
func (p *pacedReader) Read(b []byte) (int, error) {
	now := time.Now()
	deadline := now.Add(p.credit)
	if p.until.Before(deadline) {
		deadline = p.until
	}
	_ = p.ctl.SetReadDeadline(deadline) // not every writer in a test has deadlines
	n, err := p.r.Read(b)
	p.credit = min(p.credit-time.Since(now)+time.Duration(n)*time.Second/time.Duration(p.rate), p.grace)
	if err != nil && !isEnd(err) {
		err = p.explain(err)
		p.err = err
	}
	return n, err
}

// explain tells a body that is too slow or too large from one that broke off.
func (p *pacedReader) explain(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(p.until):
		return message.Errorf(message.CodeTooSlow, "the body did not come within %s", p.most)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return message.Errorf(message.CodeTooSlow, "the body came at less than %d KB a second over %s", p.rate>>10, p.grace)
	case errors.As(err, &large):
		return tooLarge(p.limit)
	}
	return message.InvalidField(message.SlugJSON, "the body broke off", "body")
}

// restTime is how long the rest of a body is waited for that is not wanted any more.
const restTime = 500 * time.Millisecond

// abandon bounds the time that net/http spends on a body that was not read: it reads up to 256 KB of it before it sends the
// answer, for the sake of the connection, and would wait for withheld bytes as long as for wanted ones.
func abandon(c echo.Context, err error) {
	body := c.Request().Body
	if v := visitOf(c); body == nil || body == http.NoBody || (v != nil && v.whole) {
		return
	}
	deadline := time.Now()
	if !message.IsCode(err, message.CodeTooSlow) {
		deadline = deadline.Add(restTime)
	}
	_ = http.NewResponseController(c.Response()).SetReadDeadline(deadline)
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) }

func tooLarge(limit int64) error {
	return message.Errorf(message.CodeTooLarge, "the body is larger than %s, which is the most that this route takes", size(limit))
}

// size writes a bound as it is documented.
func size(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KB (%d bytes)", bytes>>10, bytes)
	}
	return fmt.Sprintf("%d MB (%d bytes)", bytes>>20, bytes)
}
