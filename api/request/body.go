package request

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

// ReadLimits say how fast a body must come. A token bucket bounds the time that the API waits for it: every second of
// waiting needs MinRate bytes, Grace is the bucket's size. The time in which the API itself is at work does not count, but
// for Total, which bounds everything.
type ReadLimits struct {
	MinRate int64 // bytes a second
	Grace   time.Duration
	Total   time.Duration
}

const minRate = 64 << 10 // bytes a second

// ReadTimeout bounds the time in which a request with a JSON body must come.
const ReadTimeout = 15 * time.Second

var (
	bodyLimits   = ReadLimits{MinRate: minRate, Grace: 5 * time.Second, Total: ReadTimeout}
	uploadLimits = ReadLimits{MinRate: minRate, Grace: 30 * time.Second, Total: 15 * time.Minute}
)

// BodyReader reads a request's body within limits. A body that is too slow ends with a message.Error too_slow that names the
// bound; the connection's read deadline sees to it, also while nothing comes at all.
type BodyReader struct {
	limits ReadLimits
	r      io.Reader
	ctl    *http.ResponseController
	limit  int64
	until  time.Time
	credit time.Duration
	failed error
}

// Stream makes the reader of an upload's body, for a route of the class AdmitUpload.
func (g *Gate) Stream(c echo.Context, limit int64) *BodyReader {
	return newBodyReader(c, limit, g.Limits.Upload)
}

func newBodyReader(c echo.Context, limit int64, l ReadLimits) *BodyReader {
	return &BodyReader{
		limits: l, r: http.MaxBytesReader(c.Response(), c.Request().Body, limit), ctl: http.NewResponseController(c.Response()),
		limit: limit, until: time.Now().Add(l.Total), credit: l.Grace,
	}
}

// Read implements io.Reader.
func (p *BodyReader) Read(b []byte) (int, error) {
	now := time.Now()
	deadline := now.Add(p.credit)
	if p.until.Before(deadline) {
		deadline = p.until
	}
	_ = p.ctl.SetReadDeadline(deadline) // not every writer in a test has deadlines
	n, err := p.r.Read(b)
	p.credit = min(p.credit-time.Since(now)+time.Duration(n)*time.Second/time.Duration(p.limits.MinRate), p.limits.Grace)
	if err != nil && !isEnd(err) {
		err = p.explain(err)
		p.failed = err
	}
	return n, err
}

// Err returns the error that ended the body, nil when that was its end.
func (p *BodyReader) Err() error { return p.failed }

// explain tells a body that is too slow or too large from one that broke off.
func (p *BodyReader) explain(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(p.until):
		return message.Errorf(message.CodeTooSlow, "the body did not come within %s", p.limits.Total)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return message.Errorf(message.CodeTooSlow, "the body came at less than %d KB a second over %s", p.limits.MinRate>>10, p.limits.Grace)
	case errors.As(err, &large):
		return tooLarge(p.limit)
	}
	return message.InvalidField(message.SlugJSON, "the body broke off", "body")
}

// restTime is how long the rest of a body is waited for that is not wanted any more.
const restTime = 500 * time.Millisecond

// Abandon bounds the time that net/http spends on a body that was not read: it reads up to 256 KB of it before it sends the
// answer, for the sake of the connection, and would wait for withheld bytes as long as for wanted ones.
func Abandon(c echo.Context, err error) {
	body := c.Request().Body
	if v := GrantOf(c); body == nil || body == http.NoBody || (v != nil && v.complete) {
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
	return message.Errorf(message.CodeTooLarge, "the body is larger than %s, which is the most that this route takes", Size(limit))
}

// Size writes a bound as it is documented.
func Size(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KB (%d bytes)", bytes>>10, bytes)
	}
	return fmt.Sprintf("%d MB (%d bytes)", bytes>>20, bytes)
}
