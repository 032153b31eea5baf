package request

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"herald/pkg/message"
)

// ReadLimits bound how slowly a body may arrive. A token bucket limits the time spent waiting for bytes: each second of
// waiting costs MinRate bytes, and the bucket holds Grace. Time that the API spends on processing counts only towards Total.
type ReadLimits struct {
	MinRate int64 // bytes a second
	Grace   time.Duration
	Total   time.Duration
}

const minRate = 64 << 10 // bytes a second

// ReadTimeout bounds the arrival of a request with a JSON body.
const ReadTimeout = 15 * time.Second

var (
	bodyLimits   = ReadLimits{MinRate: minRate, Grace: 5 * time.Second, Total: ReadTimeout}
	uploadLimits = ReadLimits{MinRate: minRate, Grace: 30 * time.Second, Total: 15 * time.Minute}
)

// BodyReader reads a request's body within limits. A body that is too slow ends with a message.Error too_slow that names the
// bound; the connection's read deadline sees to it, also while nothing comes at all. A body that is compressed with gzip is
// inflated; the limit holds for both forms, so a body that inflates without end costs no more than a large one.
type BodyReader struct {
	limits ReadLimits
	r      io.Reader
	gzip   *gzip.Reader // nil before the first byte
	packed bool         // the body is compressed
	read   int64        // inflated bytes
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
	packed, _ := isPacked(c) // admit has refused what cannot be read
	return &BodyReader{
		limits: l, r: http.MaxBytesReader(c.Response(), c.Request().Body, limit), ctl: http.NewResponseController(c.Response()),
		limit: limit, until: time.Now().Add(l.Total), credit: l.Grace, packed: packed,
	}
}

// isPacked reports whether the body of a request is compressed with gzip. It returns an error for an encoding that cannot be
// read.
func isPacked(c echo.Context) (bool, error) {
	switch encoding := c.Request().Header.Get(echo.HeaderContentEncoding); strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return false, nil
	case "gzip", "x-gzip": // RFC 9110, 8.4.1.3: both names mean the same
		return true, nil
	default:
		return false, message.Errorf(message.CodeMediaType, "Content-Encoding %.50q is not supported: send the body with gzip or uncompressed", encoding)
	}
}

// Read implements io.Reader.
func (p *BodyReader) Read(b []byte) (int, error) {
	if !p.packed {
		return p.receive(b)
	}
	n, err := p.inflate(b)
	if p.read += int64(n); p.read > p.limit {
		n, err = 0, tooLarge(p.limit, 0)
	}
	if err != nil && !isEnd(err) {
		if p.failed == nil {
			p.failed = err
		}
		err = p.failed // of the connection, where that is the cause
	}
	return n, err
}

// inflate reads inflated bytes.
func (p *BodyReader) inflate(b []byte) (n int, err error) {
	if p.gzip == nil {
		p.gzip, err = gzip.NewReader(readerFunc(p.receive))
	}
	if err == nil {
		n, err = p.gzip.Read(b)
	}
	if err != nil && !errors.Is(err, io.EOF) || errors.Is(err, io.EOF) && p.gzip == nil {
		err = message.InvalidField(message.SlugValue, "the body is not valid gzip", "body")
	}
	return n, err
}

type readerFunc func(b []byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// receive reads what arrives.
func (p *BodyReader) receive(b []byte) (int, error) {
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

// fileRate is the rate, in bytes a second, at which the files in a body must come on the whole.
const fileRate = 512 << 10

// extend allows more time for a body of which some bytes belong to files.
func (p *BodyReader) extend(bytes int) {
	p.until = p.until.Add(time.Duration(bytes) * time.Second / fileRate)
}

// Err returns the error that ended the body early, nil if none did.
func (p *BodyReader) Err() error { return p.failed }

// explain maps an error of the connection to too_slow, too_large or an invalid body.
func (p *BodyReader) explain(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(p.until):
		return message.Errorf(message.CodeTooSlow, "the body did not arrive within %s", p.limits.Total)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return message.Errorf(message.CodeTooSlow, "the body arrived at less than %d KB a second over %s", p.limits.MinRate>>10, p.limits.Grace)
	case errors.As(err, &large):
		return tooLarge(p.limit, 0)
	}
	return message.InvalidField(message.SlugJSON, "the body broke off", "body")
}

// restTime bounds the wait for the rest of a body that is no longer needed. A client reads the answer to a body that is too large
// only when it has written the body: so much of it is read, and discarded, before the answer.
const (
	restTime      = 500 * time.Millisecond
	largeRestTime = 5 * time.Second
	largeRest     = 32 << 20  // bytes
	largePiece    = 256 << 10 // bytes that must arrive within restTime
)

// Abandon bounds the time that net/http spends on an unread body: to reuse the connection it reads up to 256 KB before it
// answers, and would wait for withheld bytes as long as for a body that is needed. err is the request's error, if any.
func Abandon(c echo.Context, err error) {
	body := c.Request().Body
	if v := GrantOf(c); body == nil || body == http.NoBody || (v != nil && v.complete) {
		return
	}
	deadline := time.Now()
	switch {
	case message.IsCode(err, message.CodeTooSlow):
	case message.IsCode(err, message.CodeTooLarge):
		discard(c, body)
		return
	default:
		deadline = deadline.Add(restTime)
	}
	_ = http.NewResponseController(c.Response()).SetReadDeadline(deadline)
}

// discard reads the rest of a body that is too large, while bytes arrive. An error changes nothing: the answer is written all the same.
func discard(c echo.Context, body io.Reader) {
	ctl := http.NewResponseController(c.Response())
	until := time.Now().Add(largeRestTime)
	for read := int64(0); read < largeRest && time.Now().Before(until); {
		_ = ctl.SetReadDeadline(time.Now().Add(restTime))
		n, err := io.CopyN(io.Discard, body, largePiece)
		if read += n; err != nil {
			return
		}
	}
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) }

// tooLarge returns the error of a body beyond a limit of a route whose files may have a number of bytes.
func tooLarge(limit, files int64) error {
	more := ""
	if files > 0 {
		more = fmt.Sprintf("; the files in message_data.attachments may have %s in all", Size(files))
	}
	return message.Errorf(message.CodeTooLarge, "the body is larger than the %s that this route accepts%s", Size(limit), more)
}

// Size formats a bound as the documentation does.
func Size(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KB (%d bytes)", bytes>>10, bytes)
	}
	return fmt.Sprintf("%d MB (%d bytes)", bytes>>20, bytes)
}
