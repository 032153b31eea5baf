package delivery_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/delivery"
	"herald/pkg/message"
)

// timeless is a ledger whose LoadAndClaim leaves out the times of the lead.
type timeless struct {
	delivery.Ledger
	whole bool // it does not leave them out
	loads int
}

func (l *timeless) LoadAndClaim(ctx context.Context, c delivery.Claim) (delivery.Loaded, error) {
	loaded, err := l.Ledger.LoadAndClaim(ctx, c)
	if lead := loaded.Lead; lead != nil && !l.whole {
		loaded.Lead = &message.Lead{ID: lead.ID, FirstName: lead.FirstName}
	}
	return loaded, err
}

func (l *timeless) Load(ctx context.Context, id uuid.UUID) (delivery.Loaded, error) {
	l.loads++
	return l.Ledger.Load(ctx, id)
}

// The times of a lead are loaded for templates that use them, and for no others.
func TestCaseTimesOfTheLeadAreLoadedOnUse(t *testing.T) {
	at := time.Date(2024, 1, 31, 10, 30, 0, 0, time.UTC)
	for text, want := range map[string]struct {
		text  string
		loads int
	}{
		"{{ first_name }}": {"Ann", 0}, "{{ created_at }}": {"2024-01-31T10:30:00Z", 1}, "{{ updated_at | date: '%Y' }}": {"2024", 1},
		"{{ last_contacted_at | default: 'never' }}": {"never", 1}, "{% if created_at > '2024' %}{{ first_name }}{% endif %}": {"Ann", 1},
	} {
		r := newRig(t, func(r *rig, _ *message.Message) {
			r.content = message.Content{Subject: "s", Text: text}
			l := r.row.loaded.Lead
			l.FirstName, l.CreatedAt, l.UpdatedAt = "Ann", at, at
		})
		ledger := &timeless{Ledger: r.row}
		r.deps.Ledger = ledger
		if r.run(); len(r.sent) != 1 || r.sent[0].Content.Text != want.text || ledger.loads != want.loads {
			t.Errorf("%s: %+v, loaded %d times", text, r.sent, ledger.loads)
		}
	}
	dated := func(r *rig, _ *message.Message) {
		r.content = message.Content{Subject: "s", Text: "{{ first_name }} {{ created_at | date: '%Y' | default: 'unknown' }}"}
		l := r.row.loaded.Lead
		l.FirstName, l.CreatedAt, l.UpdatedAt = "Ann", at, at
	}
	// A lead that has its times is not loaded again, and a lead that is erased between the two is rendered without them.
	r := newRig(t, dated)
	whole := &timeless{Ledger: r.row, whole: true}
	r.deps.Ledger = whole
	if r.run(); len(r.sent) != 1 || r.sent[0].Content.Text != "Ann 2024" || whole.loads != 0 {
		t.Errorf("with its times: %+v, loaded %d times", r.sent, whole.loads)
	}
	r = newRig(t, dated)
	r.deps.Ledger = &timeless{Ledger: &erasing{r.row}}
	if r.run(); len(r.sent) != 1 || r.sent[0].Content.Text != "Ann unknown" {
		t.Errorf("erased meanwhile: %+v", r.sent)
	}
}

// erasing is a ledger whose Load finds no lead.
type erasing struct{ delivery.Ledger }

func (l *erasing) Load(ctx context.Context, id uuid.UUID) (delivery.Loaded, error) {
	loaded, err := l.Ledger.Load(ctx, id)
	loaded.Lead = nil
	return loaded, err
}
