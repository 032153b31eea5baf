// Package api is Herald over HTTP: strict decoding, one table of routes, one table from error codes to statuses. It
// translates between the wire and the domain and decides nothing else.
package api

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"herald/api/openapi"
	"herald/api/request"
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
	Effects   access.IdempotencyStore
	Local     bool // it is open: it listens on a loopback address and answers this machine until there is an API key
	Leads     *lead.Service
	Messages  Messages
	Telemetry *telemetry.Telemetry
	Health    func(context.Context) telemetry.Health // a moment old at most: it is not looked at for each probe
	BulkWait  time.Duration                          // how long a bulk send waits when the request does not say
	Limits    request.Limits
}

// Server answers requests. It is an http.Handler.
type Server struct {
	Deps
	echo  *echo.Echo
	table map[string]route // by method and path, as Echo has it
	gate  *request.Gate
	pages openapi.Pages
}

// Sizes and times of the server.
const (
	maxHeader     = 32 << 10
	headerTimeout = 5 * time.Second
	writeTimeout  = 90 * time.Second // above the longest wait for a bulk
	idleTimeout   = 60 * time.Second
)

// route is one line of the table of routes.
type route struct {
	contract.Route
	handler echo.HandlerFunc
}

func (s *Server) routes() []route {
	return []route{
		{contract.RouteSend, s.send},
		{contract.RouteListMessages, s.listMessages},
		{contract.RouteGetMessage, s.getMessage},
		{contract.RouteListBulks, s.listBulks},
		{contract.RouteGetBulk, s.getBulk},
		{contract.RoutePauseBulk, s.changeBulk(s.Bulks.Pause)},
		{contract.RouteResumeBulk, s.changeBulk(s.Bulks.Resume)},
		{contract.RouteCancelBulk, s.changeBulk(s.Bulks.Cancel)},
		{contract.RouteExplainLead, s.explainLead},
		{contract.RouteListChannels, s.listChannels},
		{contract.RouteCreateChannel, s.createChannel},
		{contract.RouteGetChannel, s.getChannel},
		{contract.RouteChangeChannel, s.patchChannel},
		{contract.RouteDeleteChannel, s.deleteChannel},
		{contract.RouteListLeads, s.listLeads},
		{contract.RouteCreateLead, s.createLead},
		{contract.RouteImportLeads, s.importLeads},
		{contract.RouteGetLead, s.getLead},
		{contract.RouteChangeLead, s.patchLead},
		{contract.RouteEraseLead, s.eraseLead},
		{contract.RouteListSuppressions, s.listSuppressions},
		{contract.RouteCreateSuppression, s.createSuppression},
		{contract.RouteDeleteSuppression, s.deleteSuppression},
		{contract.RouteDocument, s.document},
		{contract.RouteDocs, s.docs},
		{contract.RouteAlive, alive},
		{contract.RouteReady, s.ready},
	}
}

// declared returns the routes of a table without their handlers.
func declared(routes []route) []contract.Route {
	all := make([]contract.Route, len(routes))
	for i, r := range routes {
		all[i] = r.Route
	}
	return all
}

// Document returns the OpenAPI document, without a server.
func Document() ([]byte, error) {
	pages, err := openapi.New(declared((&Server{}).routes()))
	return pages.JSON, err
}

// New makes a Server.
func New(d Deps) (*Server, error) {
	s := &Server{Deps: d, gate: request.NewGate(d.Limits)}
	return s, s.serve(s.routes())
}

// serve makes the server answer the routes of a table.
func (s *Server) serve(routes []route) (err error) {
	if s.pages, err = openapi.New(declared(routes)); err != nil {
		return err
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = s.fail
	e.IPExtractor = echo.ExtractIPDirect() // what a client says about its address is not believed
	e.Use(s.observe, s.identify)           // after routing, so that metrics and log name the route of rejected requests too
	s.echo, s.table = e, map[string]route{}
	for _, r := range routes {
		s.table[r.Method+" "+r.Path] = r
		e.Add(r.Method, r.Path, s.gate.Admit(r.Route, r.handler))
	}
	return nil
}

// routeOf returns the route that a request was routed to, nil when it has none.
func (s *Server) routeOf(c echo.Context) *contract.Route {
	r, ok := s.table[c.Request().Method+" "+c.Path()]
	if !ok {
		return nil
	}
	return &r.Route
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// HTTPServer returns a server with every limit set.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, ReadTimeout: request.ReadTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
}

func alive(c echo.Context) error {
	return c.JSON(http.StatusOK, contract.Health{Status: "ok"})
}

func (s *Server) document(c echo.Context) error {
	return c.Blob(http.StatusOK, contract.MediaJSON, s.pages.JSON)
}

func (s *Server) docs(c echo.Context) error { return page(c, s.pages.HTML) }

// page answers with an HTML page that has its styles within itself and runs nothing.
func page(c echo.Context, html []byte) error {
	c.Response().Header().Set(echo.HeaderContentSecurityPolicy, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	return c.HTMLBlob(http.StatusOK, html)
}

func (s *Server) ready(c echo.Context) error {
	h := s.Health(c.Request().Context())
	return c.JSON(h.Code(), h)
}
