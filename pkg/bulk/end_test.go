package bulk_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"herald/pkg/bulk"
	"herald/pkg/message"
)

// ends returns the attributes with which the ends of bulks were reported.
func (f *fake) ends() (out []map[any]any) {
	for _, c := range f.called("BulkEvent") {
		if c.args[0] != "completed" {
			continue
		}
		attrs, args := map[any]any{}, c.args[2].([]any)
		for i := 0; i+1 < len(args); i += 2 {
			attrs[args[i]] = args[i+1]
		}
		out = append(out, attrs)
	}
	return out
}

func TestIntegrationTheEndOfABulkTellsItsFigures(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		leads := f.newLeads(10)
		f.leads[leads[7]] = message.Lead{ID: leads[7]} // no address
		b := f.accept(f.newChannel(0), leads)
		<-time.After(time.Hour) // no worker runs
		f.on("Bulk", func(context.Context, int) error {
			<-time.After(time.Minute) // a slow database does not count
			return nil
		})
		f.start()
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 9 })
		f.finish(b)
		f.until(time.Hour, "the end is told", func() bool { return len(f.ends()) == 1 })
		got := f.ends()[0]
		if fmt.Sprint([]any{got["status"], got["total"], got["sent"], got["failed"]}) != "[COMPLETED 10 9 1]" {
			t.Errorf("%v", got)
		}
		now := f.now(b)
		if want := float64(now.CompletedAt.Sub(*now.StartedAt).Milliseconds()) / 1000; got["seconds"] != want || want > 3000 {
			t.Errorf("%v seconds, want %v", got["seconds"], want)
		}
	})
}

// A cancelled bulk ends as well, and says so. Figures that cannot be read do not hide the end.
func TestIntegrationOtherEndsOfABulk(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), f.newLeads(5))
		f.start()
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 5 })
		if _, err := f.newService().Cancel(t.Context(), b.ID); err != nil {
			t.Fatal(err)
		}
		f.until(time.Hour, "the end is told", func() bool { return len(f.ends()) == 1 })
		if got := f.ends()[0]; got["status"] != bulk.Cancelled || got["sent"] != int64(0) || got["failed"] != int64(5) {
			t.Errorf("%v", got)
		}
		f.fails("Bulk", 1_000, errors.New("no database"))
		other := f.accept(f.newChannel(0), f.newLeads(5))
		f.until(time.Minute, "all are fed", func() bool { return f.waiting() == 5 })
		f.finish(other)
		f.until(time.Minute, "the end is told", func() bool { return len(f.ends()) == 2 })
		if got := f.ends()[1]; fmt.Sprint(got) != "map[total:5]" {
			t.Errorf("%v", got)
		}
	})
}
