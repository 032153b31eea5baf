package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/bulk"
	"herald/pkg/contract"
)

// newEdgeAt serves the product's routes and a handler at the path of routeHook.
func newEdgeAt(t *testing.T, set func(d *Deps), handler func(s *Server, c echo.Context) error) *edge {
	t.Helper()
	return newEdge(t, set, func(e *edge) {
		hook := route{routeHook, func(c echo.Context) error { return handler(e.server, c) }}
		if err := e.server.serve(append(e.server.routes(), hook)); err != nil {
			t.Fatal(err)
		}
	})
}

// unread is a store of bulks whose read waits for release and then fails.
type unread struct {
	bulk.Store
	release chan struct{}
}

func (u *unread) Bulk(ctx context.Context, _ uuid.UUID) (*bulk.Bulk, error) {
	select {
	case <-u.release:
	case <-ctx.Done():
	}
	return nil, errors.New("the bulk cannot be read")
}

// A bulk send that waits for its figures holds a place of waiting only: no place of requests and no memory. It is answered with
// 200 even if the figures cannot be read, because the bulk is accepted.
func TestAWaitingBulkHoldsNoMemory(t *testing.T) {
	t.Parallel()
	store := &unread{release: make(chan struct{})}
	e := newEdgeAt(t, func(d *Deps) { d.Bulks = bulk.NewService(bulk.ServiceDeps{Store: store}) }, func(s *Server, c echo.Context) error {
		return s.answerBulk(c, &bulk.Bulk{ID: uuid.MustParse(exampleID)})
	})
	l := e.begin(http.MethodPost, routeHook.Path, "", 2, "{}")
	e.until("the bulk waits", func(u request.Usage) bool { return u.Waits == 1 })
	if u := e.server.gate.Usage(); u.Requests != 0 || u.Memory != 0 {
		t.Errorf("a waiting bulk holds %+v", u)
	}
	close(store.release)
	l.answer().wants(t, "an accepted bulk", 200, exampleID)
	e.rest()
}

// Sending reserves memory for the copies of a long text, and nothing for a short one.
func TestLongTextsAreCharged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text, html int
		want       int64
	}{
		"short": {longText - 1, 0, 0}, "long": {longText, 0, longText * sendCopies}, "long HTML": {0, longText, longText * sendCopies},
		"both together": {longText / 2, longText / 2, longText * sendCopies},
	} {
		charged := int64(-1)
		e := newEdgeAt(t, nil, func(s *Server, c2 echo.Context) error {
			req := &sendRequest{}
			req.content.Text, req.content.HTML = strings.Repeat("x", c.text), strings.Repeat("x", c.html)
			before := s.gate.Usage().Memory
			err := s.chargeSend(c2, req)
			charged = s.gate.Usage().Memory - before
			return errors.Join(err, c2.NoContent(http.StatusNoContent))
		})
		e.call(http.MethodPost, routeHook.Path, "Content-Type: "+contract.MediaJSON+"\r\n", "{}").wants(t, name, 204, "")
		if charged != c.want {
			t.Errorf("%s: %d bytes are charged, want %d", name, charged, c.want)
		}
	}
}
