// Package api is Herald over HTTP: strict decoding, one table of routes, one table from error codes to statuses. It
// translates between the wire and the domain and decides nothing else.
package api

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/delivery"
	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/telemetry"
)

// Messages reads the ledger. Message returns a message.Error not_found; Messages lists newest first, beginning before
// an id.
type Messages interface {
	Message(ctx context.Context, id uuid.UUID) (*message.Message, []message.Attempt, error)
	Messages(ctx context.Context, f message.Filter, before uuid.UUID, limit int) ([]message.Message, error)
}

// Deps is what the API works with.
type Deps struct {
	Sender    *delivery.Sender
	Bulks     *bulk.Service
	Preview   *bulk.Previewer
	Channels  *channel.Registry
	Leads     *lead.Service
	Messages  Messages
	Telemetry *telemetry.Telemetry
	Health    func(context.Context) telemetry.Health
	BulkWait  time.Duration // how long a bulk send waits when the request does not say
	InFlight  int           // requests that are worked on at a time
}

// Server answers requests. It is an http.Handler.
type Server struct {
	Deps
	echo *echo.Echo
	gate *gate
}

// Sizes and times of the server.
const (
	maxBody       = 8 << 20   // bytes of a JSON body: 100,000 lead ids fit
	maxImport     = 100 << 20 // bytes of an imported file
	maxHeader     = 32 << 10
	headerTimeout = 5 * time.Second
	readTimeout   = 15 * time.Second
	writeTimeout  = 90 * time.Second // above the longest wait for a bulk
	idleTimeout   = 60 * time.Second
)

const importPath = "/api/leads/import"

type route struct {
	method, path string
	handler      echo.HandlerFunc
}

func (s *Server) routes() []route {
	return []route{
		{http.MethodPost, "/api/messaging/send", s.send},
		{http.MethodGet, "/api/messaging/messages", s.listMessages},
		{http.MethodGet, "/api/messaging/messages/:id", s.getMessage},
		{http.MethodGet, "/api/messaging/bulk", s.listBulks},
		{http.MethodGet, "/api/messaging/bulk/:id", s.getBulk},
		{http.MethodPost, "/api/messaging/bulk/:id/pause", s.changeBulk(s.Bulks.Pause)},
		{http.MethodPost, "/api/messaging/bulk/:id/resume", s.changeBulk(s.Bulks.Resume)},
		{http.MethodPost, "/api/messaging/bulk/:id/cancel", s.changeBulk(s.Bulks.Cancel)},
		{http.MethodGet, "/api/messaging/bulk/:id/leads/:lead_id", s.explainLead},
		{http.MethodGet, "/api/channels", s.listChannels},
		{http.MethodPost, "/api/channels", s.createChannel},
		{http.MethodGet, "/api/channels/:id/:type", s.getChannel},
		{http.MethodPatch, "/api/channels/:id/:type", s.patchChannel},
		{http.MethodDelete, "/api/channels/:id/:type", s.deleteChannel},
		{http.MethodGet, "/api/leads", s.listLeads},
		{http.MethodPost, "/api/leads", s.createLead},
		{http.MethodPost, importPath, s.importLeads},
		{http.MethodGet, "/api/leads/:id", s.getLead},
		{http.MethodPatch, "/api/leads/:id", s.patchLead},
		{http.MethodDelete, "/api/leads/:id", s.eraseLead},
		{http.MethodGet, "/api/suppressions", s.listSuppressions},
		{http.MethodPost, "/api/suppressions", s.createSuppression},
		{http.MethodDelete, "/api/suppressions/:id", s.deleteSuppression},
		{http.MethodGet, "/healthz", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"status": "ok"}) }},
		{http.MethodGet, "/readyz", s.ready},
	}
}

// New makes a Server.
func New(d Deps) *Server {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	s := &Server{Deps: d, echo: e, gate: newGate(d.InFlight)}
	e.HTTPErrorHandler = s.fail
	e.IPExtractor = echo.ExtractIPDirect() // what a client says about its address is not believed
	e.Pre(s.observe, s.admit)
	for _, r := range s.routes() {
		e.Add(r.method, r.path, r.handler)
	}
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// HTTPServer returns a server with every limit set.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
}

func (s *Server) ready(c echo.Context) error {
	h := s.Health(c.Request().Context())
	return c.JSON(h.Code(), h)
}
