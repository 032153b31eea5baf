package request

import (
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// Stream writes the answer of a route of the class AdmitDownload. Each write has Limits.Write to complete, so an answer may
// take as long as the client keeps reading, and a client that stops reading ends it. Only one goroutine may use it.
type Stream struct {
	answer  *echo.Response
	control *http.ResponseController
	limit   time.Duration
}

// StartStream sends the head of an answer. The status is final then: when the handler returns an error later, the server
// cuts the connection, so the client does not take a part for the whole.
func (g *Gate) StartStream(c echo.Context, media string) *Stream {
	// Echo's own Flush loses the error of the connection, so the controller is of the writer below it.
	s := &Stream{answer: c.Response(), control: http.NewResponseController(c.Response().Writer), limit: g.Limits.Write}
	s.answer.Header().Set(echo.HeaderContentType, media)
	s.answer.WriteHeader(http.StatusOK)
	_ = s.Flush() // the client sees that its download began; a connection that is gone fails at the first write
	return s
}

// extend sets the deadline of the next write. Some test writers have no deadlines, so the error is ignored.
func (s *Stream) extend() { _ = s.control.SetWriteDeadline(time.Now().Add(s.limit)) }

// Write implements io.Writer.
func (s *Stream) Write(b []byte) (int, error) {
	s.extend()
	n, err := s.answer.Write(b)
	if err != nil {
		return n, fmt.Errorf("write the answer: %w", err)
	}
	return n, nil
}

// Flush sends what was written: a row of a file, or an event, reaches its client now.
func (s *Stream) Flush() error {
	s.extend()
	if err := s.control.Flush(); err != nil {
		return fmt.Errorf("flush the answer: %w", err)
	}
	return nil
}
