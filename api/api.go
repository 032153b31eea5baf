// Package api is Herald over HTTP: strict decoding, one table of routes, one table from error codes to statuses. It
// translates between the wire and the domain and decides nothing else.
package api

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/contract"
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
	Keys      *access.Keyring
	Effects   access.Effects
	Local     bool // it is open: it listens on a loopback address and answers this machine until there is an API key
	Leads     *lead.Service
	Messages  Messages
	Telemetry *telemetry.Telemetry
	Health    func(context.Context) telemetry.Health // a moment old at most: it is not looked at for each probe
	BulkWait  time.Duration                          // how long a bulk send waits when the request does not say
	InFlight  int                                    // requests that are worked on at a time
	DryRuns   int                                    // dry runs at a time; below 1: 1
}

// Server answers requests. It is an http.Handler.
type Server struct {
	Deps
	echo  *echo.Echo
	gate  *gate
	pages contractPages
}

// Sizes and times of the server.
const (
	maxBody       = 8 << 20   // bytes of what is to be sent: 100,000 lead ids fit
	maxSmallBody  = 256 << 10 // bytes of every other JSON body: a lead with all it may have fits
	maxImport     = 100 << 20 // bytes of an imported file
	maxHeader     = 32 << 10
	headerTimeout = 5 * time.Second
	readTimeout   = 15 * time.Second
	writeTimeout  = 90 * time.Second // above the longest wait for a bulk
	idleTimeout   = 60 * time.Second
)

const (
	sendPath   = "/api/messaging/send"
	importPath = "/api/leads/import"
)

// route is one line of the table of routes. A route below /api/ has a scope that its caller's key must have; the others
// are for everybody.
type route struct {
	method, path string
	scope        access.Scope
	handler      echo.HandlerFunc
}

func (s *Server) routes() []route {
	return []route{
		{http.MethodPost, sendPath, access.Send, s.send},
		{http.MethodGet, "/api/messaging/messages", access.Read, s.listMessages},
		{http.MethodGet, "/api/messaging/messages/:id", access.Read, s.getMessage},
		{http.MethodGet, "/api/messaging/bulk", access.Read, s.listBulks},
		{http.MethodGet, "/api/messaging/bulk/:id", access.Read, s.getBulk},
		{http.MethodPost, "/api/messaging/bulk/:id/pause", access.Send, s.changeBulk(s.Bulks.Pause)},
		{http.MethodPost, "/api/messaging/bulk/:id/resume", access.Send, s.changeBulk(s.Bulks.Resume)},
		{http.MethodPost, "/api/messaging/bulk/:id/cancel", access.Send, s.changeBulk(s.Bulks.Cancel)},
		{http.MethodGet, "/api/messaging/bulk/:id/leads/:lead_id", access.Read, s.explainLead},
		{http.MethodGet, "/api/channels", access.Read, s.listChannels},
		{http.MethodPost, "/api/channels", access.Admin, s.createChannel},
		{http.MethodGet, "/api/channels/:id/:type", access.Read, s.getChannel},
		{http.MethodPatch, "/api/channels/:id/:type", access.Admin, s.patchChannel},
		{http.MethodDelete, "/api/channels/:id/:type", access.Admin, s.deleteChannel},
		{http.MethodGet, "/api/leads", access.Read, s.listLeads},
		{http.MethodPost, "/api/leads", access.Send, s.createLead},
		{http.MethodPost, importPath, access.Send, s.importLeads},
		{http.MethodGet, "/api/leads/:id", access.Read, s.getLead},
		{http.MethodPatch, "/api/leads/:id", access.Send, s.patchLead},
		{http.MethodDelete, "/api/leads/:id", access.Admin, s.eraseLead},
		{http.MethodGet, "/api/suppressions", access.Read, s.listSuppressions},
		{http.MethodPost, "/api/suppressions", access.Send, s.createSuppression},
		{http.MethodDelete, "/api/suppressions/:id", access.Admin, s.deleteSuppression},
		{http.MethodGet, "/openapi.json", "", s.openapi},
		{http.MethodGet, "/docs", "", s.docs},
		{http.MethodGet, "/healthz", "", func(c echo.Context) error { return c.JSON(http.StatusOK, contract.Health{Status: "ok"}) }},
		{http.MethodGet, "/readyz", "", s.ready},
	}
}

// New makes a Server.
func New(d Deps) (*Server, error) {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	s := &Server{Deps: d, echo: e, gate: newGate(d.InFlight, d.DryRuns)}
	var err error
	if s.pages, err = makePages(s.routes()); err != nil {
		return nil, err
	}
	e.HTTPErrorHandler = s.fail
	e.IPExtractor = echo.ExtractIPDirect() // what a client says about its address is not believed
	e.Use(s.observe, s.identify)           // after routing, so that metrics and log name the route of rejected requests too
	for _, r := range s.routes() {
		handler := r.handler
		if r.scope != "" {
			if !operations[r.method+" "+r.path].asks() {
				handler = withoutQuery(handler)
			}
			handler = s.admit(r, handler)
		}
		e.Add(r.method, r.path, handler)
	}
	return s, nil
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
