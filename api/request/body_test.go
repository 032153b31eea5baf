package request

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"herald/pkg/message"
)

// deadlines is an answer that notes the deadlines it is given, and fails its writes when told so.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write []time.Time
	flushed     int
	fails       error
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.read = append(d.read, at)
	return nil
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.write = append(d.write, at)
	return nil
}

func (d *deadlines) Write(b []byte) (int, error) {
	if d.fails != nil {
		return 0, d.fails
	}
	return d.ResponseRecorder.Write(b)
}

func (d *deadlines) FlushError() error {
	d.flushed++
	return d.fails
}

// pieces is a body that comes in pieces, each after a pause. At its end it waits until the read deadline, as a connection
// does.
type pieces struct {
	answer *deadlines
	size   []int
	pause  time.Duration
	end    error
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.size) == 0 && p.end != nil {
		return 0, p.end
	}
	deadline := p.answer.read[len(p.answer.read)-1]
	if len(p.size) == 0 || !time.Now().Add(p.pause).Before(deadline) {
		time.Sleep(time.Until(deadline)) // of the fake clock
		return 0, &timeoutError{}
	}
	time.Sleep(p.pause)
	n := min(p.size[0], len(b))
	if p.size[0] -= n; p.size[0] == 0 {
		p.size = p.size[1:]
	}
	return n, nil
}

// timeoutError is a read that met its deadline.
type timeoutError struct{}

func (*timeoutError) Error() string { return "i/o timeout" }
func (*timeoutError) Is(target error) bool {
	return target.Error() == "i/o timeout" // os.ErrDeadlineExceeded
}

// Close implements io.Closer.
func (*pieces) Close() error { return nil }

// readAll reads a body within limits and returns how much came, how long it took, and the error.
func readAll(p *pieces, limit int64, l ReadLimits) (n int64, took time.Duration, err error) {
	p.answer = &deadlines{ResponseRecorder: httptest.NewRecorder()}
	req := httptest.NewRequest("POST", "/", nil)
	req.Body = p
	c := echo.New().NewContext(req, p.answer)
	start := time.Now()
	body := NewGate(Limits{Upload: l}).Stream(c, limit)
	n, err = io.Copy(io.Discard, body)
	if err != nil && !errors.Is(body.Err(), err) || err == nil && body.Err() != nil {
		err = errors.Join(errors.New("Err differs from what Read said"), err)
	}
	return n, time.Since(start), err
}

// A body must come at its least rate: what it lags behind is bounded by the grace, and what it is ahead does not count for
// later beyond that. The total time is bounded too.
func TestBodiesComeAtARate(t *testing.T) {
	limits := ReadLimits{MinRate: 1000, Grace: 5 * time.Second, Total: time.Minute}
	for name, test := range map[string]struct {
		body pieces
		took time.Duration
		code message.Code
		says string
	}{
		"fast enough":                 {pieces{size: []int{2000, 2000, 2000}, pause: time.Second, end: io.EOF}, 3 * time.Second, "", ""},
		"just the rate":               {pieces{size: []int{1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000}, pause: time.Second, end: io.EOF}, 8 * time.Second, "", ""},
		"nothing":                     {pieces{}, 5 * time.Second, message.CodeTooSlow, "at less than 0 KB a second over 5s"},
		"a trickle":                   {pieces{size: []int{1, 1, 1, 1, 1, 1, 1, 1, 1}, pause: time.Second}, 5*time.Second + 5*time.Millisecond, message.CodeTooSlow, "over 5s"},
		"much, then nothing":          {pieces{size: []int{100_000}}, 5 * time.Second, message.CodeTooSlow, "over 5s"},
		"too long, although at rate":  {pieces{size: repeat(1000, 100), pause: time.Second}, time.Minute, message.CodeTooSlow, "within 1m0s"},
		"too large":                   {pieces{size: []int{200_000, 1}}, 0, message.CodeTooLarge, "195 KB (200000 bytes)"},
		"broken off":                  {pieces{size: []int{10}, end: io.ErrUnexpectedEOF}, 0, message.CodeInvalid, "broke off"},
		"broken off by another cause": {pieces{end: errors.New("reset")}, 0, message.CodeInvalid, "broke off"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, took, err := readAll(&test.body, 200_000, limits)
				if test.code == "" && err != nil {
					t.Error(err)
				}
				if test.code != "" {
					wantError(t, name, err, test.code, test.says)
				}
				if took != test.took {
					t.Errorf("it took %s, want %s", took, test.took)
				}
			})
		})
	}
}

func repeat(size, n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = size
	}
	return all
}

// The limits that a gate has unless it is told others.
func TestUsualReadLimits(t *testing.T) {
	g := NewGate(Limits{})
	if want := (ReadLimits{MinRate: 64 << 10, Grace: 5 * time.Second, Total: 15 * time.Second}); g.Limits.Body != want {
		t.Errorf("%+v, want %+v", g.Limits.Body, want)
	}
	if want := (ReadLimits{MinRate: 64 << 10, Grace: 30 * time.Second, Total: 15 * time.Minute}); g.Limits.Upload != want {
		t.Errorf("%+v, want %+v", g.Limits.Upload, want)
	}
	own := ReadLimits{MinRate: 1, Grace: 2, Total: 3}
	if g := NewGate(Limits{Body: own, Upload: own, Write: 4}); g.Limits.Body != own || g.Limits.Upload != own || g.Limits.Write != 4 || NewGate(Limits{}).Limits.Write != 30*time.Second {
		t.Errorf("%+v", g.Limits)
	}
}

// What is left of a body that is not wanted is waited for half a second; after a body that was too slow, not at all. A body
// that was read to its end has no rest.
func TestAbandonedBodies(t *testing.T) {
	for name, test := range map[string]struct {
		body     string
		complete bool
		err      error
		want     []time.Duration // deadlines from now
	}{
		"no body":           {"", false, nil, nil},
		"an unwanted body":  {"x", false, nil, []time.Duration{500 * time.Millisecond}},
		"another failure":   {"x", false, message.Errorf(message.CodeInvalid, "x"), []time.Duration{500 * time.Millisecond}},
		"too large":         {"x", false, message.Errorf(message.CodeTooLarge, "x"), []time.Duration{500 * time.Millisecond}},
		"too slow":          {"x", false, message.Errorf(message.CodeTooSlow, "x"), []time.Duration{0}},
		"read to its end":   {"x", true, nil, nil},
		"slow and complete": {"x", true, message.Errorf(message.CodeTooSlow, "x"), nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			req := httptest.NewRequest("POST", "/", strings.NewReader(test.body))
			if test.body == "" {
				req.Body = http.NoBody
			}
			answer := &deadlines{ResponseRecorder: httptest.NewRecorder()}
			c := echo.New().NewContext(req, answer)
			c.Set(grantKey, &Grant{complete: test.complete})
			Abandon(c, test.err)
			if len(answer.read) != len(test.want) || len(test.want) > 0 && time.Until(answer.read[0]) != test.want[0] {
				t.Errorf("%s: deadlines %v at %s, want %v from now", name, answer.read, time.Now(), test.want)
			}
		})
	}
}

// A request without a body has what is left of one abandoned when it is admitted.
func TestUnwantedBodiesAreAbandoned(t *testing.T) {
	answer := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	c := echo.New().NewContext(httptest.NewRequest("GET", "/", strings.NewReader("x")), answer)
	if err := NewGate(Limits{InFlight: 1}).Admit(readRoute, pass)(c); err != nil || len(answer.read) != 1 {
		t.Errorf("%v, %d deadlines", err, len(answer.read))
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{1 << 10: "1 KB (1024 bytes)", 256 << 10: "256 KB (262144 bytes)", 1<<20 - 1: "1023 KB (1048575 bytes)", 1 << 20: "1 MB (1048576 bytes)"} {
		if got := Size(bytes); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
}

// Each write of a stream resets the deadline, the head is sent at once, and errors are returned.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 7 * time.Second
		answer := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		c := echo.New().NewContext(httptest.NewRequest("GET", "/", nil), answer)
		s := NewGate(Limits{Write: limit}).StartStream(c, "text/csv")
		if answer.Code != 200 || answer.Header().Get("Content-Type") != "text/csv" || answer.flushed != 1 {
			t.Errorf("the head: %d %v, flushed %d times", answer.Code, answer.Header(), answer.flushed)
		}
		check := func(what string) {
			t.Helper()
			if n := len(answer.write); n == 0 || time.Until(answer.write[n-1]) != limit {
				t.Errorf("%s: deadlines %v at %s", what, answer.write, time.Now())
			}
		}
		check("the head")
		time.Sleep(time.Minute) // of the fake clock
		if n, err := s.Write([]byte("a,b\n")); n != 4 || err != nil || answer.Body.String() != "a,b\n" {
			t.Errorf("%d, %v, %q", n, err, answer.Body)
		}
		check("a write")
		time.Sleep(time.Minute)
		if err := s.Flush(); err != nil || answer.flushed != 2 {
			t.Errorf("%v, flushed %d times", err, answer.flushed)
		}
		check("a flush")
		answer.fails = errors.New("gone")
		if _, err := s.Write([]byte("x")); !errors.Is(err, answer.fails) {
			t.Errorf("a write that fails: %v", err)
		}
		if err := s.Flush(); !errors.Is(err, answer.fails) {
			t.Errorf("a flush that fails: %v", err)
		}
	})
}
