package bulk_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/bulk"
	"herald/pkg/channel"
	"herald/pkg/message"
)

// hang waits for the end of a call's context.
func hang(ctx context.Context, _ int) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAcceptWritesTheBulk(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		r := newRequest(f.newChannel(0), f.newLeads(3))
		r.Priority, r.Criteria.AllowDuplicateRecipients, r.Key = message.Low, true, &access.IdempotencyKey{Caller: "k"}
		b, err := f.newService().Accept(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		c := f.called("InsertBulk")[0]
		got := c.args[0].(bulk.Bulk)
		if got.ID != b.ID || got.ID.Version() != 7 || got.Channel != r.Channel.Key || got.Provider != "sendgrid" || got.MessageType != message.Marketing ||
			got.Priority != message.Low || got.Status != bulk.Processing || got.Content.Subject != "s" || len(got.Criteria.LeadIDs) != 3 || string(got.Request) != "{}" {
			t.Errorf("%+v", got)
		}
		if c.args[1] != r.Key || !got.CreatedAt.Equal(time.Now().Truncate(time.Microsecond)) || got.CreatedAt.Location() != time.UTC {
			t.Errorf("key %v, created at %v", c.args[1], got.CreatedAt)
		}
		if w := f.called("Wake"); len(w) != 1 || w[0].args[0] != b.ID || f.events("accepted") != 1 {
			t.Errorf("woken %+v, %d events", w, f.events("accepted"))
		}
	})
}

func TestAcceptRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(r *bulk.Request)
		store  error
		want   func(err error) bool
	}{
		"content without text":    {change: func(r *bulk.Request) { r.Content.Text = "" }, want: isInvalid},
		"a template that is none": {change: func(r *bulk.Request) { r.Content.Text = "{{ first_name" }, want: isInvalid},
		"a template that fails":   {change: func(r *bulk.Request) { r.Content.Subject = "{{ first_name | no_such_filter }}" }, want: isInvalid},
		"a deleted channel":       {store: message.Errorf(message.CodeNotFound, "channel not found"), want: func(err error) bool { return message.IsCode(err, message.CodeNotFound) }},
		"a key that is taken":     {store: access.ErrKeyTaken, want: func(err error) bool { return errors.Is(err, access.ErrKeyTaken) }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				r := newRequest(f.newChannel(0), f.newLeads(1))
				if c.change != nil {
					c.change(&r)
				}
				f.fails("InsertBulk", 1, c.store)
				b, err := f.newService().Accept(t.Context(), r)
				if b != nil || !c.want(err) {
					t.Errorf("%+v, %v", b, err)
				}
				if len(f.called("Wake")) != 0 || f.events("accepted") != 0 || (c.store == nil && len(f.called("InsertBulk")) != 0) {
					t.Error("something was done all the same")
				}
			})
		})
	}
}

func isInvalid(err error) bool { return message.IsCode(err, message.CodeInvalid) }

// The wake-up is best effort: Redis that fails or hangs costs a second and a report, not the request.
func TestAcceptDoesWithoutRedis(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		f.on("Wake", hang)
		began := time.Now()
		f.accept(f.newChannel(0), f.newLeads(1))
		if took := time.Since(began); took != time.Second || f.reported()[0] != "wake" {
			t.Errorf("it took %v, reported %v", took, f.reported())
		}
	})
}

// TestMoves fixes which status each change may start from, and what follows it.
func TestMoves(t *testing.T) {
	t.Parallel()
	all := bulk.Statuses
	for _, c := range []struct {
		name   string
		move   func(s *bulk.Service, ctx context.Context, id uuid.UUID) (*bulk.View, error)
		from   []bulk.Status
		to     bulk.Status
		event  string
		awoken int
	}{
		{"pause", (*bulk.Service).Pause, []bulk.Status{bulk.Processing}, bulk.Paused, "paused", 0},
		{"resume", (*bulk.Service).Resume, []bulk.Status{bulk.Paused}, bulk.Processing, "resumed", 1},
		{"cancel", (*bulk.Service).Cancel, []bulk.Status{bulk.Processing, bulk.Paused}, bulk.Cancelled, "cancelled", 1},
	} {
		for _, from := range all {
			t.Run(c.name+" "+string(from), func(t *testing.T) {
				inBubble(t, func(t *testing.T, f *fake) {
					b := f.accept(f.newChannel(0), f.newLeads(1))
					f.bulks[b.ID].Status = from
					before := len(f.called("Wake"))
					v, err := c.move(f.newService(), t.Context(), b.ID)
					allowed := false
					for _, s := range c.from {
						allowed = allowed || s == from
					}
					woken := len(f.called("Wake")) - before
					switch {
					case allowed && (err != nil || v.Status != c.to || woken != c.awoken || f.events(c.event) != 1):
						t.Errorf("%+v, %v, woken %d times, %d events", v, err, woken, f.events(c.event))
					case !allowed && (!message.IsCode(err, message.CodeConflict) || f.now(b).Status != from || woken != 0 || f.events(c.event) != 0):
						t.Errorf("%v, the status is %s, woken %d times, %d events", err, f.now(b).Status, woken, f.events(c.event))
					}
				})
			})
		}
	}
}

// sentBulk is a bulk of three messages: the ledger knows that two are sent, the counters know of one.
func sentBulk(f *fake) *bulk.Bulk {
	b := f.accept(f.newChannel(0), f.newLeads(3))
	row := f.bulks[b.ID]
	for range 3 {
		f.addRow(row, fakeMessage{PlannedRow: bulk.PlannedRow{ID: uuid.New(), Status: message.Sent}, cost: 3})
	}
	row.rows[2].Status = message.Pending
	row.Total, row.Planned = 3, true
	_ = f.Begin(f.t.Context(), b.ID)
	f.count(b.ID, row.rows[0].state())
	return b
}

// A bulk's figures come from its final counts, else from the counters, else from the ledger.
func TestGetReadsTheFigures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		set   func(f *fake, b *bulk.Bulk)
		sent  int64
		tally int
		took  time.Duration
	}{
		{"from the counters", func(*fake, *bulk.Bulk) {}, 1, 0, 0},
		{"counters are lost", func(f *fake, b *bulk.Bulk) { delete(f.counts, b.ID) }, 2, 1, 0},
		{"counters are being rebuilt", func(f *fake, b *bulk.Bulk) { f.rebuilding[b.ID] = true }, 2, 1, 0},
		{"Redis fails", func(f *fake, _ *bulk.Bulk) { f.fails("Read", 1, errDown) }, 2, 1, 0},
		{"Redis hangs", func(f *fake, _ *bulk.Bulk) { f.on("Read", hang) }, 2, 1, time.Second},
		{"final counts", func(f *fake, b *bulk.Bulk) {
			counts := f.bulks[b.ID].tally()
			f.bulks[b.ID].Final = &counts
			f.on("Read", hang)
		}, 2, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				b := sentBulk(f)
				c.set(f, b)
				s := f.newService()
				began := time.Now()
				v, err := s.Get(t.Context(), b.ID)
				if err != nil || v.Sent != c.sent || v.Figures.Total != 3 || len(f.called("Tally")) != c.tally || time.Since(began) != c.took {
					t.Errorf("%+v, %v, tallied %d times, after %v", v, err, len(f.called("Tally")), time.Since(began))
				}
				views, err := s.List(t.Context(), bulk.Filter{}, uuid.Nil, 10)
				if err != nil || len(views) != 1 || views[0].Sent != c.sent && c.name != "Redis fails" {
					t.Errorf("listed as %+v, %v", views, err)
				}
				pass(time.Second)
			})
		})
	}
}

func TestGetReportsErrors(t *testing.T) {
	t.Parallel()
	for port, want := range map[string]error{"Bulk": errDown, "Tally": errDown, "Get": errDown, "Bulks": errDown} {
		t.Run(port, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				b := sentBulk(f)
				delete(f.counts, b.ID)
				f.on(port, func(context.Context, int) error { return want })
				s := f.newService()
				if port != "Bulks" {
					if v, err := s.Get(t.Context(), b.ID); !errors.Is(err, want) {
						t.Errorf("%+v, %v", v, err)
					}
				}
				if port != "Bulk" {
					if v, err := s.List(t.Context(), bulk.Filter{}, uuid.Nil, 1); !errors.Is(err, want) {
						t.Errorf("%+v, %v", v, err)
					}
				}
			})
		})
	}
	inBubble(t, func(t *testing.T, f *fake) {
		if _, err := f.newService().Get(t.Context(), uuid.New()); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("a bulk that does not exist: %v", err)
		}
	})
}

// Until the bulk ends its view has the state of its channel: the operator's, or that of the provider.
func TestGetShowsTheChannel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		state    channel.State
		reason   string
		provider channel.State
		want     channel.State
	}{
		{"the provider is down", channel.Active, "", channel.Down, channel.Down},
		{"the channel is paused", channel.Paused, "revoked", channel.Down, channel.Paused},
		{"the channel is deleted", channel.Deleted, "", channel.Down, channel.Deleted},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake) {
				b := sentBulk(f)
				f.state = c.provider
				f.channels[b.Channel].State, f.channels[b.Channel].StateReason = c.state, c.reason
				if c.state == channel.Deleted {
					delete(f.channels, b.Channel)
				}
				s := f.newService()
				if v, err := s.Get(t.Context(), b.ID); err != nil || v.ChannelState != c.want || v.ChannelReason != c.reason {
					t.Errorf("%+v, %v", v, err)
				}
				f.end(b)
				if v, err := s.Get(t.Context(), b.ID); err != nil || v.ChannelState != "" {
					t.Errorf("when it has ended: %+v, %v", v, err)
				}
			})
		})
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(0)
		var ids []string
		for range 3 {
			ids = append(ids, f.accept(c, nil).ID.String())
		}
		s := f.newService()
		list := func(before uuid.UUID, limit int) (out []string) {
			views, err := s.List(t.Context(), bulk.Filter{}, before, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range views {
				out = append(out, v.ID.String())
			}
			return out
		}
		if got, want := fmt.Sprint(list(uuid.Nil, 2)), fmt.Sprint([]string{ids[2], ids[1]}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := fmt.Sprint(list(uuid.MustParse(ids[1]), 2)), fmt.Sprint([]string{ids[0]}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// Waiting reads the row after 10, 20, 40, 80, 160 ms, and then every 250 ms.
func TestWaitBacksOff(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := sentBulk(f)
		began := time.Now()
		v, err := f.newService().Wait(t.Context(), b.ID, time.Second)
		if err != nil || v.Sent != 1 || time.Since(began) != time.Second {
			t.Errorf("%+v, %v after %v", v, err, time.Since(began))
		}
		var at []string
		for _, c := range f.called("Bulk") {
			at = append(at, fmt.Sprint(c.at.Sub(began).Milliseconds()))
		}
		if got := fmt.Sprint(at); got != "[0 10 30 70 150 310 560 810 1000]" {
			t.Errorf("read at %s ms", got)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	t.Parallel()
	wait := func(t *testing.T, f *fake, ctx context.Context, d time.Duration, meanwhile func(s *bulk.Service, b *bulk.Bulk)) (*bulk.View, time.Duration, error) {
		t.Helper()
		b := sentBulk(f)
		s := f.newService()
		began := time.Now()
		done := make(chan struct{})
		var v *bulk.View
		var err error
		go func() {
			defer close(done)
			v, err = s.Wait(ctx, b.ID, d)
		}()
		pass(5 * time.Second)
		meanwhile(s, b)
		<-done
		return v, time.Since(began), err
	}
	t.Run("with the bulk", func(t *testing.T) {
		inBubble(t, func(t *testing.T, f *fake) {
			v, took, err := wait(t, f, t.Context(), time.Hour, func(_ *bulk.Service, b *bulk.Bulk) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.end(b)
			})
			if err != nil || v.Sent != 2 || took > 5*time.Second+250*time.Millisecond {
				t.Errorf("%+v, %v after %v", v, err, took)
			}
		})
	})
	t.Run("when the process drains", func(t *testing.T) {
		inBubble(t, func(t *testing.T, f *fake) {
			v, took, err := wait(t, f, t.Context(), time.Hour, func(s *bulk.Service, _ *bulk.Bulk) { s.Drain() })
			if err != nil || v.Sent != 1 || took != 5*time.Second {
				t.Errorf("%+v, %v after %v", v, err, took)
			}
		})
	})
	t.Run("with its caller", func(t *testing.T) {
		inBubble(t, func(t *testing.T, f *fake) {
			ctx, cancel := context.WithCancel(t.Context())
			_, took, err := wait(t, f, ctx, time.Hour, func(*bulk.Service, *bulk.Bulk) { cancel() })
			if !errors.Is(err, context.Canceled) || took != 5*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
	})
	t.Run("at once without patience", func(t *testing.T) {
		inBubble(t, func(t *testing.T, f *fake) {
			b := sentBulk(f)
			began := time.Now()
			if v, err := f.newService().Wait(t.Context(), b.ID, 0); err != nil || v.Sent != 1 || time.Since(began) != 0 {
				t.Errorf("%+v, %v", v, err)
			}
		})
	})
}

// Templates are parsed once per bulk, also when its messages begin together.
func TestTemplatesAreParsedOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), nil, func(r *bulk.Request) { r.Content.Text = "Hello {{ first_name }}" })
		f.on("Bulk", func(context.Context, int) error { time.Sleep(time.Second); return nil })
		templates := bulk.NewTemplates(f)
		for range 50 {
			go func() {
				tpl, err := templates.Template(t.Context(), b.ID)
				if err != nil {
					t.Error(err)
					return
				}
				if r, err := tpl.Render(t.Context(), &message.Lead{FirstName: "Ann"}); err != nil || r.Text != "Hello Ann" {
					t.Errorf("%q, %v", r.Text, err)
				}
			}()
		}
		pass(2 * time.Second)
		if n := len(f.called("Bulk")); n != 1 {
			t.Errorf("the bulk was read %d times", n)
		}
	})
}

// A message whose context ends does not take the templates from the others, and a failure is not kept.
func TestTemplatesOutliveTheirFirstReader(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		b := f.accept(f.newChannel(0), nil)
		templates := bulk.NewTemplates(f)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := templates.Template(ended, b.ID); err != nil {
			t.Errorf("the templates were read with the caller's context: %v", err)
		}
		other := f.accept(f.newChannel(0), nil)
		f.fails("Bulk", 2, errDown)
		if _, err := templates.Template(t.Context(), other.ID); !errors.Is(err, errDown) {
			t.Errorf("%v", err)
		}
		if _, err := templates.Template(t.Context(), other.ID); err != nil {
			t.Errorf("after the failure: %v", err)
		}
		if _, err := templates.Template(t.Context(), uuid.New()); !message.IsCode(err, message.CodeNotFound) {
			t.Errorf("%v", err)
		}
	})
}

// The cache keeps a thousand bulks; the templates of the one that was not used for longest are read again.
func TestTemplatesAreBounded(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fake) {
		c := f.newChannel(0)
		templates := bulk.NewTemplates(f)
		var bulks []*bulk.Bulk
		read := func(b *bulk.Bulk) {
			t.Helper()
			if _, err := templates.Template(t.Context(), b.ID); err != nil {
				t.Fatal(err)
			}
		}
		for range 1_001 {
			b := f.accept(c, nil)
			bulks = append(bulks, b)
			read(b)
			read(bulks[0])
		}
		before := len(f.called("Bulk"))
		if before != 1_001 {
			t.Errorf("%d bulks were read %d times", len(bulks), before)
		}
		read(bulks[0])
		read(bulks[1_000])
		if n := len(f.called("Bulk")) - before; n != 0 {
			t.Errorf("%d of two used templates were read again", n)
		}
		read(bulks[1])
		if n := len(f.called("Bulk")) - before; n != 1 {
			t.Errorf("the oldest template was read %d times", n)
		}
	})
}

// end gives a bulk its final counts. The caller holds the lock where other goroutines run.
func (f *fake) end(b *bulk.Bulk) {
	counts := f.bulks[b.ID].tally()
	f.bulks[b.ID].Final = &counts
}
