package lead_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/audience"
	"herald/pkg/lead"
	"herald/pkg/message"
)

// memory implements the ports of a Service in memory, as strictly as their comments allow: MergeLeads passes only leads that
// the batch names by a key.
type memory struct {
	mu           sync.Mutex
	leads        map[uuid.UUID]message.Lead
	batches      []lead.Batch
	suppressions []message.Suppression
}

// inMemory returns a service over an empty memory.
func inMemory() (*lead.Service, *memory) {
	m := &memory{leads: map[uuid.UUID]message.Lead{}}
	return lead.NewService(m, m, m), m
}

func notFound(what string) error { return message.Errorf(message.CodeNotFound, "%s not found", what) }

func (m *memory) Lead(_ context.Context, id uuid.UUID) (*message.Lead, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.leads[id]
	if !ok {
		return nil, notFound("lead")
	}
	return &l, nil
}

func (m *memory) Leads(_ context.Context, c *audience.Criteria, after uuid.UUID, limit int) ([]message.Lead, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.SortedFunc(maps.Values(m.leads), func(a, b message.Lead) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	all = slices.DeleteFunc(all, func(l message.Lead) bool {
		return l.ID.String() <= after.String() || c != nil && !c.Match(audience.NewPerson(&l))
	})
	return all[:min(limit, len(all))], nil
}

func (m *memory) InsertLeads(_ context.Context, leads []message.Lead) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range leads {
		if _, used := m.leads[l.ID]; used {
			return message.Errorf(message.CodeConflict, "the id is in use")
		}
	}
	for _, l := range leads {
		m.leads[l.ID] = l
	}
	return nil
}

func (m *memory) UpdateLead(_ context.Context, id uuid.UUID, change func(*message.Lead) error) (*message.Lead, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.leads[id]
	if !ok {
		return nil, notFound("lead")
	}
	if err := change(&l); err != nil {
		return nil, err
	}
	m.leads[id] = l
	return &l, nil
}

func (m *memory) MergeLeads(ctx context.Context, b lead.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.batches = append(m.batches, b)
	var stored []message.Lead
	for _, l := range m.leads {
		if slices.Contains(b.IDs, l.ID) || l.Email != "" && slices.Contains(b.Emails, message.EmailKey(l.Email)) || l.Phone != "" && slices.Contains(b.Phones, message.PhoneKey(l.Phone)) {
			stored = append(stored, l)
		}
	}
	created, updated := b.Merge(stored)
	written := map[uuid.UUID]bool{}
	for i, l := range slices.Concat(created, updated) {
		if _, known := m.leads[l.ID]; known != (i >= len(created)) || written[l.ID] {
			return fmt.Errorf("lead %s is inserted although it exists, updated although it does not, or written twice", l.ID)
		}
		written[l.ID] = true
	}
	for _, l := range slices.Concat(created, updated) {
		m.leads[l.ID] = l
	}
	return nil
}

func (m *memory) EraseLead(_ context.Context, id uuid.UUID, _ ...func(time.Time) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.leads[id]; !ok {
		return notFound("lead")
	}
	delete(m.leads, id)
	return nil
}

func (m *memory) PutSuppression(_ context.Context, s *message.Suppression) error {
	m.suppressions = append(m.suppressions, *s)
	return nil
}

func (m *memory) ListSuppressions(context.Context, message.SuppressionFilter, uuid.UUID, int) ([]message.Suppression, error) {
	return m.suppressions, nil
}

func (m *memory) DropSuppression(context.Context, uuid.UUID) error { return notFound("suppression") }

// all returns the leads sorted by email address.
func (m *memory) all(t *testing.T) []message.Lead {
	t.Helper()
	leads, err := m.Leads(t.Context(), nil, uuid.Nil, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(leads, func(a, b message.Lead) int { return strings.Compare(a.Email, b.Email) })
	return leads
}

// one returns the only lead with an email address.
func (m *memory) one(t *testing.T, email string) message.Lead {
	t.Helper()
	found := slices.DeleteFunc(m.all(t), func(l message.Lead) bool { return l.Email != email })
	if len(found) != 1 {
		t.Fatalf("%d leads have the address %s, want 1", len(found), email)
	}
	return found[0]
}

// mustImport imports a file and fails the test on an error.
func mustImport(t *testing.T, s *lead.Service, format lead.Format, file string) lead.Report {
	t.Helper()
	rep, err := s.Import(t.Context(), lead.ImportOptions{Format: format}, strings.NewReader(file))
	if err != nil {
		t.Fatalf("import: %v", err)
	}
	return rep
}

// csvFile is a CSV file of n rows that is generated while it is read.
func csvFile(header string, n int, row func(i int) string) io.Reader {
	return &generated{next: header + "\n", n: n, row: func(i int) string { return row(i) + "\n" }}
}

type generated struct {
	next string
	i, n int
	row  func(i int) string
}

// Read implements io.Reader.
func (g *generated) Read(p []byte) (int, error) {
	for g.next == "" {
		if g.i == g.n {
			return 0, io.EOF
		}
		g.next = g.row(g.i)
		g.i++
	}
	n := copy(p, g.next)
	g.next = g.next[n:]
	return n, nil
}
