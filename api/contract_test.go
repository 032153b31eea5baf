package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"herald/api/openapi"
)

// document is the OpenAPI document that the API serves, read by a library that did not write it. Every request and every
// answer of this package's tests is held against it.
type document struct {
	Paths      map[string]map[string]operation
	Components struct {
		Responses map[string]response
	}

	compiler *jsonschema.Compiler
	mu       sync.Mutex
	compiled map[string]*jsonschema.Schema
	seen     map[string]bool // operations that were answered with success
}

type operation struct {
	OperationID string
	Security    []map[string][]string
	Parameters  []struct {
		Name, In string
		Schema   json.RawMessage
		Example  any
	}
	RequestBody *struct {
		Content map[string]struct {
			Examples map[string]struct{ Value json.RawMessage }
			Example  string
		}
	}
	Responses map[string]response
}

type response struct {
	Ref     string `json:"$ref"`
	Headers map[string]json.RawMessage
	Content map[string]json.RawMessage
}

const documentURL = "memory:openapi.json"

var contractOnce struct {
	sync.Once
	doc *document
	err error
}

// the returns the document that a Herald serves; all serve the same.
func the(h *herald) *document {
	h.t.Helper()
	contractOnce.Do(func() { contractOnce.doc, contractOnce.err = readDocument(h.base) })
	if contractOnce.err != nil {
		h.t.Fatal(contractOnce.err)
	}
	return contractOnce.doc
}

func readDocument(base string) (*document, error) {
	res, err := http.Get(base + "/openapi.json")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	d := &document{compiler: jsonschema.NewCompiler(), compiled: map[string]*jsonschema.Schema{}, seen: map[string]bool{}}
	if err := json.Unmarshal(b, d); err != nil {
		return nil, err
	}
	tree, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	return d, d.compiler.AddResource(documentURL, withFurtherValues(tree))
}

// withFurtherValues applies the extension x-also-accepts, which JSON Schema does not know: a schema that has it becomes the choice
// of what it says and of the further values.
func withFurtherValues(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, inner := range v {
			out[name] = withFurtherValues(inner)
		}
		if further, ok := out[openapi.AlsoAccepts]; ok {
			delete(out, openapi.AlsoAccepts)
			return map[string]any{"anyOf": []any{out, further}}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = withFurtherValues(v[i])
		}
		return out
	}
	return v
}

// TestMain also fails when all tests were run and an operation of the document was never answered with success: then
// nothing was held against what it says.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "6") // most tests wait for a timer or a database; -parallel has precedence
	code := m.Run()
	d := contractOnce.doc
	if code == 0 && d != nil && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" {
		for path, ops := range d.Paths {
			for method, op := range ops {
				if !d.seen[op.OperationID] {
					fmt.Fprintf(os.Stderr, "no test was answered by %s %s\n", strings.ToUpper(method), path)
					code = 1
				}
			}
		}
	}
	os.Exit(code)
}

// exchange is a request and its answer.
type exchange struct {
	method, path, body string
	sent               http.Header
	status             int
	got                http.Header
	answer             []byte
}

// find returns the operation that a path and method mean, with its own path.
func (d *document) find(method, path string) (string, *operation) {
	path, _, _ = strings.Cut(path, "?")
	have := strings.Split(path, "/")
	best := ""
	for p := range d.Paths {
		want := strings.Split(p, "/")
		if slices.EqualFunc(want, have, func(w, h string) bool { return w == h || strings.HasPrefix(w, "{") }) && (best == "" || strings.Count(p, "{") < strings.Count(best, "{")) {
			best = p
		}
	}
	op, ok := d.Paths[best][strings.ToLower(method)]
	if !ok {
		return "", nil
	}
	return best, &op
}

func escape(part string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(part)
}

// schema compiles a schema of the document, once.
func (d *document) schema(parts ...string) (*jsonschema.Schema, error) {
	for i := range parts {
		parts[i] = escape(parts[i])
	}
	pointer := "/" + strings.Join(parts, "/")
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.compiled[pointer]; s != nil {
		return s, nil
	}
	s, err := d.compiler.Compile(documentURL + "#" + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer))
	if err == nil {
		d.compiled[pointer] = s
	}
	return s, err
}

// holds fails the test when an exchange is not as the document says.
func (d *document) holds(t testing.TB, x exchange) {
	t.Helper()
	path, op := d.find(x.method, x.path)
	if op == nil {
		if x.status != http.StatusNotFound && x.status != http.StatusMethodNotAllowed && x.status != http.StatusUnauthorized {
			t.Errorf("%s %s is not in the document, and answers %d", x.method, x.path, x.status)
		}
		return
	}
	method := strings.ToLower(x.method)
	if x.status < 300 {
		d.mu.Lock()
		d.seen[op.OperationID] = true
		d.mu.Unlock()
		d.holdsRequest(t, x, op, path, method)
	}
	at := []string{"paths", path, method, "responses", strconv.Itoa(x.status)}
	r, ok := op.Responses[strconv.Itoa(x.status)]
	if !ok {
		t.Errorf("%s %s answers %d, which the document does not know: %s", x.method, x.path, x.status, x.answer)
		return
	}
	if name, ok := strings.CutPrefix(r.Ref, "#/components/responses/"); ok {
		at, r = []string{"components", "responses", name}, d.Components.Responses[name]
	}
	known := append([]string{}, usualHeaders...)
	for name := range r.Headers {
		known = append(known, http.CanonicalHeaderKey(name))
	}
	for name := range x.got {
		if !slices.Contains(known, name) {
			t.Errorf("%s %s answers with the header %s, which the document does not know", x.method, x.path, name)
		}
	}
	if media, _, _ := mime.ParseMediaType(x.got.Get("Content-Type")); media != "application/json" && r.Content[media] != nil {
		return
	}
	if len(r.Content) == 0 {
		if len(x.answer) > 0 && x.status == http.StatusNoContent {
			t.Errorf("%s %s: an answer that the document does not know: %s", x.method, x.path, x.answer)
		}
		return
	}
	s, err := d.schema(append(at, "content", "application/json", "schema")...)
	if err != nil {
		t.Fatal(err)
	}
	conforms(t, s, x.answer, fmt.Sprintf("the answer of %s %s", x.method, x.path))
}

// usualHeaders are those that every answer may have: the connection's own, and what browsers are told.
var usualHeaders = []string{
	"Content-Type", "Content-Length", "Date", "Cache-Control", "X-Content-Type-Options", "Content-Security-Policy", "Cross-Origin-Resource-Policy",
	"Referrer-Policy", "Allow", "Connection", "Transfer-Encoding",
}

// holdsRequest checks a request that was accepted.
func (d *document) holdsRequest(t testing.TB, x exchange, op *operation, path, method string) {
	t.Helper()
	media, _, _ := mime.ParseMediaType(x.sent.Get("Content-Type"))
	if op.RequestBody == nil || (media != "" && media != "application/json") || strings.HasSuffix(media, "+json") {
		return
	}
	s, err := d.schema("paths", path, method, "requestBody", "content", "application/json", "schema")
	if err != nil {
		t.Fatal(err)
	}
	conforms(t, s, []byte(x.body), fmt.Sprintf("the request %s %s", x.method, x.path))
}

func conforms(t testing.TB, s *jsonschema.Schema, body []byte, what string) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = s.Validate(v)
	}
	if err != nil {
		t.Errorf("%s is not what the document says: %v\n%.2000s", what, err, body)
	}
}
