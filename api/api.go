// Package api serves Herald over HTTP. It translates between the wire types of package contract and the domain, and
// decides nothing else: it must not know the database, the queue or a provider.
//
// One table (Server.routes) binds each contract.Route to its handler; one table (statuses) maps error codes to HTTP
// statuses. A request passes, in this order: routing, observe (request id, log line, metrics, panics), identify (API key),
// the gate of package request (scope, body, place), and its handler. Package openapi makes the
// document and its reference page from the same table.
package api

import (
	"context"
	"net/http"
	"strings"
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
	"herald/pkg/version"
)

// Messages reads the ledger. Message returns a message.Error not_found for an unknown id. Messages lists newest first; it
// starts with the message before an id (keyset pagination), at most limit.
type Messages interface {
	Message(ctx context.Context, id uuid.UUID) (*message.Message, []message.Attempt, error)
	Messages(ctx context.Context, f message.Filter, before uuid.UUID, limit int) ([]message.Message, error)
}

// Deps are the services that the handlers call, and the settings of the server.
type Deps struct {
	Sender    *delivery.Sender
	Bulks     *bulk.Service
	Preview   *bulk.Previewer
	Channels  *channel.Registry
	Keys      *access.Keyring
	Effects   access.IdempotencyStore
	Local     bool // open mode: the API listens on a loopback address and answers this machine without a key until one exists
	Leads     *lead.Service
	Messages  Messages
	Telemetry *telemetry.Telemetry
	Health    func(context.Context) telemetry.Health // cached for up to a second, so probes cost nothing
	BulkWait  time.Duration                          // how long a bulk send waits for figures without a Prefer header
	Limits    request.Limits
}

// Server answers requests. It implements http.Handler and is safe for concurrent use.
type Server struct {
	deps  Deps
	echo  *echo.Echo
	table map[string]route // by method and path pattern
	words map[string]bool  // the segments of the paths of routes
	gate  *request.Gate
	pages openapi.Pages
}

// Bounds of a connection. Bodies have their own bounds (package request).
const (
	maxHeader     = 32 << 10
	headerTimeout = 5 * time.Second
	writeTimeout  = 90 * time.Second // above the longest wait for a bulk
	idleTimeout   = 60 * time.Second
)

// route binds a declared route to its handler.
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
		{contract.RoutePauseBulk, s.changeBulk(s.deps.Bulks.Pause)},
		{contract.RouteResumeBulk, s.changeBulk(s.deps.Bulks.Resume)},
		{contract.RouteCancelBulk, s.changeBulk(s.deps.Bulks.Cancel)},
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

// cutSlash removes one slash from the end of a path before it is routed. A redirect would lose the body of a POST in many
// clients.
func cutSlash(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		u := c.Request().URL
		if n := len(u.Path); n > 1 && u.Path[n-1] == '/' && u.Path[n-2] != '/' {
			u.Path, u.RawPath = u.Path[:n-1], strings.TrimSuffix(u.RawPath, "/")
		}
		return next(c)
	}
}

// declared returns the declarations of a table.
func declared(routes []route) []contract.Route {
	all := make([]contract.Route, len(routes))
	for i, r := range routes {
		all[i] = r.Route
	}
	return all
}

// Document returns the OpenAPI document as JSON. It needs no server.
func Document() ([]byte, error) {
	pages, err := openapi.New(declared((&Server{}).routes()))
	return pages.JSON, err
}

// New returns a Server that answers every route of the contract.
func New(d Deps) (*Server, error) {
	s := &Server{deps: d, gate: request.NewGate(d.Limits)}
	return s, s.serve(s.routes())
}

// serve builds the router and the document from a table of routes. Tests pass other tables.
func (s *Server) serve(routes []route) (err error) {
	if s.pages, err = openapi.New(declared(routes)); err != nil {
		return err
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = s.fail
	e.IPExtractor = echo.ExtractIPDirect() // addresses in X-Forwarded-For are not trusted
	e.Pre(cutSlash)
	e.Use(s.observe, s.identify) // run after routing, so that metrics and logs name the route of rejected requests
	s.echo, s.table, s.words = e, map[string]route{}, map[string]bool{}
	for _, r := range routes {
		s.table[r.Method+" "+r.Path] = r
		for _, word := range strings.Split(r.Path, "/") {
			s.words[word] = !strings.HasPrefix(word, ":")
		}
		e.Add(r.Method, r.Path, s.gate.Admit(r.Route, r.handler))
		if r.Method == http.MethodGet { // net/http leaves the body out
			s.table[http.MethodHead+" "+r.Path] = r
			e.HEAD(r.Path, s.gate.Admit(r.Route, r.handler))
		}
	}
	return nil
}

// routeOf returns the declaration of the route that a request matched, nil for none.
func (s *Server) routeOf(c echo.Context) *contract.Route {
	r, ok := s.table[c.Request().Method+" "+c.Path()]
	if !ok {
		return nil
	}
	return &r.Route
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// HTTPServer returns an http.Server with every timeout and bound set.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, ReadTimeout: request.ReadTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
}

func alive(c echo.Context) error {
	return c.JSON(http.StatusOK, contract.Health{Status: "ok", Version: version.Get().Version})
}

func (s *Server) document(c echo.Context) error {
	return c.Blob(http.StatusOK, contract.MediaJSON, s.pages.JSON)
}

func (s *Server) docs(c echo.Context) error { return page(c, s.pages.HTML) }

// page answers with an HTML page. Its policy allows inline styles and no scripts.
func page(c echo.Context, html []byte) error {
	c.Response().Header().Set(echo.HeaderContentSecurityPolicy, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	return c.HTMLBlob(http.StatusOK, html)
}

func (s *Server) ready(c echo.Context) error {
	h := s.deps.Health(c.Request().Context())
	return c.JSON(h.Code(), h)
}
