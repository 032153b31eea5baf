package records_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/bulk"
	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/store"
	"herald/pkg/store/storetest"
)

// The files of a bulk are stored once, for all its messages, and shown with each of them.
func TestCaseABulkIsWrittenWithItsFiles(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		like := storetest.InsertBulk(t, s, nil)
		b := *like
		b.ID, b.Files = newID(), []message.FileData{{[]byte("a"), []byte("b")}, {[]byte("c")}}
		b.Request = []byte(`{"message_data":{"metadata":{"n":1},"attachments":[{"name":"a.txt","type":"text/plain","size":2},{"name":"c.txt","type":"text/plain","size":1}]}}`)
		for range 2 { // it may be repeated
			again := b
			must(t, s.InsertBulk(t.Context(), &again, nil))
		}
		files, err := s.Files(t.Context(), b.ID)
		must(t, err)
		if d := cmp.Diff(b.Files, files); d != "" {
			t.Error(d)
		}
		lease, running := storetest.Acquire(t, s, b.ID, time.Minute)
		rows := storetest.PlannedRows(t, s, 2)
		must(t, s.AddPage(t.Context(), bulk.PlanPage{Lease: lease, Bulk: running, Rows: rows, Done: true}))
		list, err := s.Messages(t.Context(), message.Filter{BulkID: b.ID}, uuid.Nil, 10)
		must(t, err)
		one, _, err := s.Message(t.Context(), rows[0].ID)
		must(t, err)
		want := []message.Attachment{{Name: "a.txt", Type: "text/plain", Size: 2}, {Name: "c.txt", Type: "text/plain", Size: 1}}
		for _, m := range append(list, *one) {
			if d := cmp.Diff(want, m.Attachments); d != "" {
				t.Error(d)
			}
		}
		must(t, s.EraseLead(t.Context(), rows[0].LeadID))
		if _, err := s.Files(t.Context(), b.ID); err != nil {
			t.Errorf("the files of a bulk go with one of its leads: %v", err)
		}
	})
}

// The attachments of a single go with its lead: in whichever way the single belongs to the lead. Those of other singles stay.
func TestCaseErasureOfAttachments(t *testing.T) {
	each(t, func(t *testing.T, s *storetest.Store) {
		lead, other := storetest.Annabel(t, s), storetest.Lead(t, s, nil)
		single := func(lead uuid.UUID, to string) uuid.UUID {
			now := store.Stamp(time.Now())
			m := &message.Message{
				ID: newID(), LeadID: lead, ChannelID: newID(), ChannelType: message.Email, Recipient: to, MessageType: message.Transactional, Priority: message.High,
				Content: &message.Content{Subject: "s", Text: "t", Attachments: []message.Attachment{{Name: "annabel.pdf", Type: "application/pdf", Size: 7}}},
				Status:  message.Queued, CreatedAt: now, UpdatedAt: now,
			}
			storetest.Insert(t, s, delivery.Entry{Message: m, Files: []message.FileData{{[]byte("Annabel")}}})
			return m.ID
		}
		named, byAddress, unknown, others, orphan := single(lead, "x@example.com"), single(uuid.Nil, storetest.AnnabelsEmail), single(newID(), storetest.AnnabelsEmail),
			single(other, storetest.AnnabelsEmail), single(newID(), "x@example.com")
		must(t, s.EraseLead(t.Context(), lead))
		must(t, s.EraseMessage(t.Context(), orphan))
		for what, id := range map[string]uuid.UUID{"the lead's": named, "to the address": byAddress, "to the address of an unknown lead": unknown, "of a missing lead": orphan} {
			m, _, err := s.Message(t.Context(), id)
			must(t, err)
			if _, err := s.Files(t.Context(), id); !message.IsCode(err, message.CodeNotFound) || len(m.Attachments) != 0 {
				t.Errorf("%s: %v, shown %+v", what, err, m.Attachments)
			}
		}
		if files, err := s.Files(t.Context(), others); err != nil || len(files) != 1 {
			t.Errorf("another lead's: %v, %v", files, err)
		}
	})
}
