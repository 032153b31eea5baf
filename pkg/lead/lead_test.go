package lead_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

func newService(t *testing.T) (*lead.Service, *store.Store) {
	t.Helper()
	s := storetest.SQLite(t)
	return lead.NewService(s, s, s), s
}

// rows yields a CSV file of any length without holding it.
func rows(n int, row func(i int) string) io.Reader {
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, "email,first_name,tags\n")
		for i := range n {
			if _, err := io.WriteString(w, row(i)); err != nil {
				return
			}
		}
		_ = w.Close()
	}()
	return r
}

// Rows that mean the same lead take effect in the file's order, however far apart they stand and however many batches
// are written at once.
func TestRowsTakeEffectInOrder(t *testing.T) {
	svc, s := newService(t)
	const n, people = 9_000, 300
	rep, err := svc.Import(t.Context(), lead.CSV, rows(n, func(i int) string { return fmt.Sprintf("p%d@example.com,N%d,t%d\n", i%people, i, i/people) }))
	if err != nil || rep.Imported != people || rep.Updated != n-people {
		t.Fatalf("%+v, %v", rep, err)
	}
	leads, err := s.Leads(t.Context(), uuid.Nil, people+1)
	if err != nil || len(leads) != people {
		t.Fatalf("%d leads, %v", len(leads), err)
	}
	for _, l := range leads {
		want := n - people
		if l.Email != "p0@example.com" && l.Email != "p299@example.com" {
			continue
		}
		if l.Email == "p299@example.com" {
			want = n - 1
		}
		if l.FirstName != fmt.Sprintf("N%d", want) || len(l.Tags) != n/people {
			t.Errorf("%s is %s with %d tags, want N%d", l.Email, l.FirstName, len(l.Tags), want)
		}
	}
}

// Rows that were read before an upload breaks off are kept, in whole batches and in the last one, and the error says how
// many.
func TestFaultAFileThatBreaksOff(t *testing.T) {
	lost := errors.New("connection lost")
	cut := message.InvalidField(message.SlugJSON, "the body broke off", "body")
	large := message.Errorf(message.CodeTooLarge, "the body is too large")
	for name, c := range map[string]struct {
		rows, known int
		err         error
		says        string
	}{
		"one batch, not full":      {3, 0, lost, "connection lost"},
		"a full batch":             {2_000, 0, cut, "the body broke off; rows that were read before are kept: 2000 imported, 0 updated"},
		"full batches and a rest":  {4_003, 0, cut, "kept: 4003 imported, 0 updated"},
		"people who are known":     {5, 3, large, "the body is too large; rows that were read before are kept: 2 imported, 3 updated"},
		"nothing before the break": {0, 0, cut, "the body broke off"},
	} {
		svc, s := newService(t)
		for i := range c.known {
			if err := svc.Create(t.Context(), &message.Lead{Email: fmt.Sprintf("p%d@example.com", i)}); err != nil {
				t.Fatal(err)
			}
		}
		r, w := io.Pipe()
		go func() {
			_, _ = io.WriteString(w, "email,first_name\n")
			for i := range c.rows {
				_, _ = fmt.Fprintf(w, "p%d@example.com,N\n", i)
			}
			_, _ = io.WriteString(w, "cut@exam")
			_ = w.CloseWithError(c.err)
		}()
		rep, err := svc.Import(t.Context(), lead.CSV, r)
		var e *message.Error
		said := fmt.Sprint(err)
		if errors.As(err, &e) && len(e.Fields) > 0 {
			said = e.Fields[0].Msg
		}
		if err == nil || !strings.Contains(said, c.says) || rep.Imported != c.rows-c.known || rep.Updated != c.known {
			t.Errorf("%s: %+v, %q", name, rep, said)
		}
		if list, _ := s.Leads(t.Context(), uuid.Nil, 10_000); len(list) != c.rows {
			t.Errorf("%s: %d leads are there, want %d", name, len(list), c.rows)
		}
	}
}

// failing is a store that fails after some writes.
type failing struct {
	lead.Store
	mu   sync.Mutex
	left int
}

func (f *failing) MergeLeads(ctx context.Context, b lead.Batch) error {
	f.mu.Lock()
	f.left--
	ok := f.left >= 0
	f.mu.Unlock()
	if !ok {
		return errors.New("disk full")
	}
	return f.Store.MergeLeads(ctx, b)
}

func TestAStoreThatFailsEndsTheImport(t *testing.T) {
	_, s := newService(t)
	svc := lead.NewService(&failing{Store: s, left: 2}, s, s)
	rep, err := svc.Import(t.Context(), lead.CSV, rows(20_000, func(i int) string { return fmt.Sprintf("p%d@example.com,N,t\n", i) }))
	if err == nil || rep.Imported > 4_000 {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestImportRows(t *testing.T) {
	svc, _ := newService(t)
	for name, c := range map[string]struct {
		format   lead.Format
		file     string
		imported int
		errors   []string
	}{
		"cells":         {lead.CSV, "id,email,tags,created_at,x\n,a@example.com,\"a;;b; a\",2025-01-02T03:04:05Z,1\n", 1, nil},
		"bad time":      {lead.CSV, "email,created_at\na@example.com,yesterday\n", 0, []string{"created_at"}},
		"bad text":      {lead.CSV, "email,first_name\na@example.com,\xff\n", 0, []string{"not valid text"}},
		"NUL":           {lead.CSV, "email,first_name\na@example.com,a\x00b\n", 0, []string{"not valid text"}},
		"long":          {lead.CSV, "email,first_name\na@example.com," + strings.Repeat("x", 1001) + "\n", 0, []string{"1000 characters"}},
		"bad quote":     {lead.CSV, "email,first_name\n\"a\"b,c\nd@example.com,e\n", 1, []string{"not valid CSV"}},
		"many tags":     {lead.CSV, "email,tags\na@example.com," + strings.Repeat("t", 201) + "\n", 0, []string{"tags"}},
		"ndjson":        {lead.NDJSON, `{"email":"n@example.com","tags":["a"]}` + "\n" + `{"email":1}` + "\n[]\n" + `{"x":1}`, 1, []string{"string", "object", "unknown"}},
		"a huge line":   {lead.NDJSON, `{"first_name":"` + strings.Repeat("x", 300<<10) + "\"}\n" + `{"email":"h@example.com"}` + "\n", 1, []string{"bytes long"}},
		"an empty file": {lead.NDJSON, "\n\n", 0, nil},
	} {
		rep, err := svc.Import(t.Context(), c.format, strings.NewReader(c.file))
		if err != nil || rep.Imported+rep.Updated != c.imported || rep.Rejected != len(c.errors) {
			t.Errorf("%s: %+v, %v", name, rep, err)
			continue
		}
		for i, want := range c.errors {
			if !strings.Contains(rep.Errors[i].Msg, want) {
				t.Errorf("%s: %q does not say %q", name, rep.Errors[i].Msg, want)
			}
		}
	}
}

func FuzzImport(f *testing.F) {
	for _, s := range []string{"email\na@example.com\n", "a,b\n\"x", "id,tags\n,;;\n", "\xff\n", "email,email\n", `{"email":"x"}`} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, isCSV bool) {
		format := lead.NDJSON
		if isCSV {
			format = lead.CSV
		}
		svc := lead.NewService(nowhere{}, nil, nil)
		rep, err := svc.Import(t.Context(), format, strings.NewReader(string(b)))
		if err != nil && !message.IsCode(err, message.CodeInvalid) {
			t.Errorf("%v", err)
		}
		if rep.Rejected < len(rep.Errors) {
			t.Errorf("%+v", rep)
		}
	})
}

// nowhere keeps nothing.
type nowhere struct{ lead.Store }

func (nowhere) MergeLeads(_ context.Context, b lead.Batch) error {
	b.Merge(nil)
	return nil
}
