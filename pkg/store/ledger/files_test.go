package ledger_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

// someFiles are two files, one of two pieces.
func someFiles() ([]message.Attachment, []message.FileData) {
	data := []message.FileData{{bytes.Repeat([]byte{0, 1, 255}, 65536), []byte("end")}, {[]byte("%PDF")}}
	return []message.Attachment{{Name: "a.bin", Type: "application/octet-stream", Size: data[0].Size()}, {Name: "b.pdf", Type: "application/pdf", Size: 4}}, data
}

// withFiles is an email with files that is due now.
func withFiles() delivery.Entry {
	now := store.Stamp(time.Now())
	list, data := someFiles()
	m := &message.Message{
		ID: newID(), ChannelID: newID(), ChannelType: message.Email, Recipient: "ann@example.com", MessageType: message.Transactional, Priority: message.High,
		Content: &message.Content{
			Subject: "s", Text: "t", ReplyTo: &message.Mailbox{Email: "help@acme.test", Name: "Acme"}, Headers: []message.Header{{Name: "X-A", Value: "{{ id }}"}}, Attachments: list,
		},
		Status: message.Queued, CreatedAt: now, UpdatedAt: now,
	}
	return delivery.Entry{Message: m, Files: data}
}

// A single is written with its files, its reply address and its headers, once, also when its insert is repeated. Workers find them.
func TestCaseASingleIsWrittenWithItsFiles(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		e := withFiles()
		e.Claim = delivery.Claim{ID: e.Message.ID, Token: uuid.New(), TTL: time.Minute}
		for range 2 {
			if got := storetest.Insert(t, s, e); !got.Claimed || got.ChannelVersion == 0 {
				t.Fatalf("%+v", got)
			}
		}
		files, err := s.Files(t.Context(), e.Message.ID)
		must(t, err)
		if d := cmp.Diff(e.Files, files); d != "" {
			t.Error(d)
		}
		l, err := s.Load(t.Context(), e.Message.ID)
		must(t, err)
		if d := cmp.Diff(e.Message.Content, l.Message.Content); d != "" || l.Message.Status != message.Sending {
			t.Errorf("%s %s", l.Message.Status, d)
		}
		shown, _, err := s.Message(t.Context(), e.Message.ID)
		must(t, err)
		if d := cmp.Diff(e.Message.Content.Attachments, shown.Attachments); d != "" {
			t.Error(d)
		}
		if _, err := s.Files(t.Context(), newID()); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("files of another message: %v", err)
		}
	})
}

// A single that is not written leaves no files: its key is taken, its channel or its lead is gone. One that is suppressed keeps them, and
// is not claimed.
func TestFilesAreWrittenWithTheirSingleOnly(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		none := func(e delivery.Entry, what string) {
			t.Helper()
			if _, err := s.Files(t.Context(), e.Message.ID); !message.IsCode(err, message.CodeNotFound) || storetest.Exists(t, s, e.Message.ID) {
				t.Errorf("%s: %v", what, err)
			}
		}
		key := storetest.IdempotencyKey("caller", "key", "request")
		first, second := withFiles(), withFiles()
		first.Key, second.Key, second.Message.ChannelID = key, key, first.Message.ChannelID
		storetest.Insert(t, s, first)
		if _, err := s.Insert(t.Context(), second); !errors.Is(err, access.ErrKeyTaken) {
			t.Errorf("a taken key: %v", err)
		}
		none(second, "a taken key")
		if _, err := s.Files(t.Context(), first.Message.ID); err != nil {
			t.Errorf("the key's own single: %v", err)
		}
		lost := withFiles()
		if _, err := s.Insert(t.Context(), lost); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("without its channel: %v", err)
		}
		none(lost, "without its channel")
		erased := withFiles()
		erased.Message.LeadID, erased.Message.ChannelID, erased.ForLead = newID(), first.Message.ChannelID, true
		if _, err := s.Insert(t.Context(), erased); !errors.Is(err, delivery.ErrLeadErased) {
			t.Errorf("without its lead: %v", err)
		}
		none(erased, "without its lead")

		must(t, s.PutSuppression(t.Context(), &message.Suppression{
			ID: newID(), Type: message.Email, Address: "ben@example.com", Hash: message.HashAddress("ben@example.com"), Reason: message.Unsubscribed, MessageTypes: message.MessageTypes, CreatedAt: time.Now(),
		}))
		suppressed := withFiles()
		suppressed.Message.Recipient, suppressed.Message.ChannelID = "ben@example.com", first.Message.ChannelID
		suppressed.Claim = delivery.Claim{ID: suppressed.Message.ID, Token: uuid.New(), TTL: time.Minute}
		if got := storetest.Insert(t, s, suppressed); got.Claimed || got.Suppressed != message.Unsubscribed {
			t.Errorf("%+v", got)
		}
	})
}
