package lead_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/lead"
	"herald/pkg/message"
)

// recent reports whether a time was set a moment ago, in UTC and to the microsecond.
func recent(at time.Time) bool {
	return time.Since(at) < time.Minute && at.Location() == time.UTC && at.Truncate(time.Microsecond).Equal(at)
}

func TestCreateFillsInIDAndTimes(t *testing.T) {
	svc, _ := inMemory()
	l := &message.Lead{Email: "ann@example.com"}
	if err := svc.Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	got, err := svc.Get(t.Context(), l.ID)
	if err != nil || got.ID.Version() != 7 || !recent(got.CreatedAt) || !got.UpdatedAt.Equal(got.CreatedAt) {
		t.Errorf("%+v, %v", got, err)
	}
	given := &message.Lead{ID: uuid.New(), CreatedAt: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)}
	want := *given
	if err := svc.Create(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	got, err = svc.Get(t.Context(), want.ID)
	if err != nil || !got.CreatedAt.Equal(want.CreatedAt) || !recent(got.UpdatedAt) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := svc.Create(t.Context(), &want); !message.IsCode(err, message.CodeConflict) || !strings.Contains(err.Error(), want.ID.String()) {
		t.Errorf("an id that is in use: %v", err)
	}
	if list, err := svc.List(t.Context(), lead.Filter{}, uuid.Nil, 1); err != nil || len(list) != 1 {
		t.Errorf("%d leads are listed, want 1: %v", len(list), err)
	}
}

func TestUpdateKeepsTheTimeOfCreation(t *testing.T) {
	svc, _ := inMemory()
	old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	l := &message.Lead{CreatedAt: old, City: "Linz"}
	if err := svc.Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	got, err := svc.Update(t.Context(), l.ID, func(l *message.Lead) error { l.City, l.UpdatedAt = "Oslo", old; return nil })
	if err != nil || got.City != "Oslo" || !got.CreatedAt.Equal(old) || !recent(got.UpdatedAt) {
		t.Errorf("%+v, %v", got, err)
	}
	refused := errors.New("refused")
	if _, err := svc.Update(t.Context(), l.ID, func(l *message.Lead) error { l.City = "Rome"; return refused }); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	if got, _ := svc.Get(t.Context(), l.ID); got.City != "Oslo" {
		t.Errorf("a refused change is stored: %+v", got)
	}
	if err := svc.Erase(t.Context(), l.ID); err != nil {
		t.Error(err)
	}
	if _, err := svc.Get(t.Context(), l.ID); !message.IsCode(err, message.CodeNotFound) {
		t.Errorf("an erased lead: %v", err)
	}
}

func TestSuppress(t *testing.T) {
	svc, m := inMemory()
	everything := []message.MessageType{message.Transactional, message.Marketing, message.Notification}
	for name, c := range map[string]struct {
		in      message.Suppression
		address string
		stopped []message.MessageType
	}{
		"unsubscribed": {message.Suppression{Type: message.Email, Address: " Ann@Example.com", Reason: message.Unsubscribed}, "Ann@example.com", everything[1:]},
		"bounced":      {message.Suppression{Type: message.SMS, Address: " +14155550100", Reason: message.SuppressedBounce}, "+14155550100", everything},
		"as asked": {
			message.Suppression{Type: message.Email, Address: "bob@example.com", Reason: message.Unsubscribed, MessageTypes: everything[:1]},
			"bob@example.com", everything[:1],
		},
	} {
		m.suppressions = nil
		if err := svc.Suppress(t.Context(), &c.in); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := m.suppressions[0]
		slices.Sort(got.MessageTypes)
		want := slices.Sorted(slices.Values(c.stopped))
		if got.Address != c.address || got.Hash != message.HashAddress(c.address) || got.ID.Version() != 7 || !recent(got.CreatedAt) || !slices.Equal(got.MessageTypes, want) {
			t.Errorf("%s: %+v, want %s and %v", name, got, c.address, want)
		}
	}
	m.suppressions = nil
	err := svc.Suppress(t.Context(), &message.Suppression{Type: message.Email, Address: "nobody", Reason: message.Unsubscribed})
	var e *message.Error
	if !errors.As(err, &e) || e.Code != message.CodeInvalid || e.Fields[0].Loc[0] != "address" || len(m.suppressions) != 0 {
		t.Errorf("an address that is none: %v", err)
	}
}

// The update time tells the versions of a lead apart, also if the process that updated it last has a clock ahead of this one.
func TestIntegrationEachUpdateIsLater(t *testing.T) {
	svc, m := inMemory()
	l := &message.Lead{FirstName: "Ann"}
	if err := svc.Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	ahead := *l
	ahead.UpdatedAt = time.Now().UTC().Add(time.Hour).Truncate(time.Microsecond)
	m.leads[l.ID] = ahead
	got, err := svc.Update(t.Context(), l.ID, func(l *message.Lead) error {
		l.FirstName = "Bea"
		return nil
	})
	if err != nil || !got.UpdatedAt.Equal(ahead.UpdatedAt.Add(time.Microsecond)) {
		t.Errorf("updated at %v after %v: %v", got, ahead.UpdatedAt, err)
	}
}
