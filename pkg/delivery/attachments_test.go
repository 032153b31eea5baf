package delivery_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"herald/pkg/delivery"
	"herald/pkg/message"
)

// shelf is a store of the files of one owner.
type shelf struct {
	owner uuid.UUID
	files []message.FileData
	err   error
	asked int
	cache *delivery.FileCache
}

func (s *shelf) Files(_ context.Context, owner uuid.UUID) ([]message.FileData, error) {
	s.asked++
	if owner != s.owner {
		return nil, message.Errorf(message.CodeNotFound, "not found")
	}
	return s.files, s.err
}

// attached is a content with a file, and the file.
func attached() (message.Content, []message.FileData) {
	return message.Content{Subject: "s", Text: "t", Attachments: []message.Attachment{{Name: "a.txt", Type: "text/plain", Size: 10 << 20}}}, []message.FileData{{[]byte("hello")}}
}

// A worker reads the files of a bulk once for all its messages, and those of a single that was handed to it. A call with files may take
// longer. Messages without files ask for none.
func TestWorkersSendStoredFiles(t *testing.T) {
	for kind, change := range map[string]func(r *rig, m *message.Message){"bulk": nil, "single": single} {
		store := &shelf{}
		var content message.Content
		content, store.files = attached()
		r := newRig(t, func(r *rig, m *message.Message) {
			store.owner = m.BulkID
			if change != nil {
				change(r, m)
				m.Content, store.owner = &content, m.ID
			}
			r.content = content
		})
		r.deps.Files = delivery.NewFileCache(store)
		if res := r.run(); res.Status != message.Sent || store.asked != 1 {
			t.Errorf("%s: %+v, %d reads", kind, res, store.asked)
		}
		if d := cmp.Diff(store.files, r.last.Files); d != "" {
			t.Errorf("%s: %s", kind, d)
		}
		if took := r.timeouts[0]; took < 24*time.Second || took > 25*time.Second {
			t.Errorf("%s: the call may take %s", kind, took)
		}
	}
	store := &shelf{} // what a single had is not kept after it
	content, data := attached()
	for want := 1; want <= 2; want++ {
		r := newRig(t, func(r *rig, m *message.Message) {
			single(r, m)
			m.ID, m.Content = uuid.UUID{1}, &content
		})
		store.owner, store.files = r.row.loaded.Message.ID, data
		if r.deps.Files = cacheOf(store); r.run().Status != message.Sent || store.asked != want {
			t.Errorf("a single for the %d. time: %d reads", want, store.asked)
		}
	}
	r := newRig(t, nil) // its Deliverer has no files
	if res := r.run(); res.Status != message.Sent || r.last.Files != nil || r.timeouts[0] > delivery.SendTimeout {
		t.Errorf("without files: %+v, %v, %s", res, r.last.Files, r.timeouts[0])
	}
}

// cacheOf returns the cache of a store, the same one each time.
func cacheOf(s *shelf) *delivery.FileCache {
	if s.cache == nil {
		s.cache = delivery.NewFileCache(s)
	}
	return s.cache
}

// While other messages have all memory for files, a message waits, and is then put back without an attempt.
func TestMessagesWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, data := attached()
		content.Attachments[0].Size = 64 << 20
		store := &shelf{files: data}
		rigs := make([]*rig, 2)
		for i := range rigs {
			rigs[i] = newRig(t, func(r *rig, _ *message.Message) { r.content = content })
			rigs[i].deps.Files = cacheOf(store)
		}
		store.owner = rigs[0].row.loaded.Message.BulkID
		release := make(chan struct{})
		rigs[0].onSend = func() { <-release }
		first := make(chan delivery.Result)
		go func() { first <- rigs[0].run() }()
		synctest.Wait()
		began := time.Now()
		res := rigs[1].run()
		if m := rigs[1].row.loaded.Message; res.Status != message.Pending || m.Attempt != 0 || rigs[1].sends != 0 || time.Since(began) != 5*time.Second {
			t.Errorf("without room: %+v with %d attempts after %s", res, m.Attempt, time.Since(began))
		}
		if out := rigs[1].out.Load(); out != 0 {
			t.Errorf("%d messages wait, for the limit of the worker", out)
		}
		close(release)
		if res := <-first; res.Status != message.Sent {
			t.Errorf("%+v", res)
		}
	})
}

// A single is sent with the files of its request, which are written with it.
func TestSinglesSendTheFilesOfTheirRequest(t *testing.T) {
	r := newRig(t, func(r *rig, m *message.Message) { single(r, m) })
	r.deps.Files = delivery.NewFileCache(&shelf{})
	req := r.request()
	req.Content, req.Files = attached()
	sent, err := r.sender().Send(t.Context(), req)
	if err != nil || sent.Status != message.Sent {
		t.Fatalf("%+v, %v", sent, err)
	}
	if d := cmp.Diff(req.Files, r.last.Files); d != "" {
		t.Error(d)
	}
	if len(r.row.entries) != 1 || !cmp.Equal(r.row.entries[0].Files, req.Files) {
		t.Errorf("entries %+v", r.row.entries)
	}
}

// A message whose files are gone ends, and uses no attempt; one whose files cannot be read now is run again.
func TestFilesThatAreGone(t *testing.T) {
	content, _ := attached()
	for _, claimed := range []bool{false, true} {
		r := newRig(t, func(r *rig, _ *message.Message) { r.content, r.row.plain = content, claimed })
		r.deps.Files = delivery.NewFileCache(&shelf{})
		res := r.run()
		if res.Status != message.Failed || res.Reason != message.RenderInvalid || r.sends != 0 || r.outcome().GiveBack != claimed {
			t.Errorf("gone, claimed %v: %+v, %d calls", claimed, res, r.sends)
		}
		r = newRig(t, func(r *rig, _ *message.Message) { r.content, r.row.plain = content, claimed })
		r.deps.Files = delivery.NewFileCache(&shelf{owner: r.row.loaded.Message.BulkID, err: errGone})
		if _, err := r.d().Run(t.Context(), r.row.loaded.Message.ID); !errors.Is(err, errGone) || r.sends != 0 {
			t.Errorf("not now, claimed %v: %v, %d calls", claimed, err, r.sends)
		}
		if m := r.row.loaded.Message; m.Status != message.Pending || m.Attempt != 0 {
			t.Errorf("not now, claimed %v: %s with %d attempts", claimed, m.Status, m.Attempt)
		}
	}
}
