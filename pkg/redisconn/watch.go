package redisconn

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Watch asks Redis at a fixed interval whether it answers, and tells the log: one WARN when it stops answering, repeated with
// exponential back-off, and one INFO when it answers again. A process would otherwise be silent, since it serves without Redis.
type Watch struct {
	ping    func(ctx context.Context) error
	address string
	log     *slog.Logger
	stop    context.CancelFunc
	done    sync.WaitGroup
}

const (
	watchInterval = time.Second
	watchTimeout  = 2 * time.Second // of one ping
	firstReminder = 10 * time.Second
	maxReminder   = 5 * time.Minute
)

// StartWatch starts to ask. address is where Redis is, for the log (Address).
func StartWatch(ping func(ctx context.Context) error, address string, log *slog.Logger) *Watch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watch{ping: ping, address: address, log: log.With("component", "redis"), stop: cancel}
	w.done.Go(func() { w.run(ctx) })
	return w
}

// Stop ends the watch and waits for the ping in progress. It may be called on nil.
func (w *Watch) Stop() {
	if w == nil {
		return
	}
	w.stop()
	w.done.Wait()
}

// outage is a time without Redis. Its zero value is no outage.
type outage struct {
	since    time.Time
	reminder time.Duration // after the last line until the next one
	next     time.Time
}

func (w *Watch) run(ctx context.Context) {
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	for out := (outage{}); ; {
		err := w.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		out = w.tell(ctx, out, err, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (w *Watch) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	return w.ping(ctx)
}

// tell logs what a ping found, and returns the outage as it is now.
func (w *Watch) tell(ctx context.Context, out outage, err error, now time.Time) outage {
	switch {
	case err == nil && out.since.IsZero():
		return out
	case err == nil:
		w.log.InfoContext(ctx, "redis answers again", "address", w.address, "seconds", seconds(now.Sub(out.since)))
		return outage{}
	case out.since.IsZero():
		out = outage{since: now, reminder: firstReminder}
	case now.Before(out.next):
		return out
	default:
		out.reminder = min(2*out.reminder, maxReminder)
	}
	out.next = now.Add(out.reminder)
	w.log.WarnContext(ctx, "redis does not answer: bulks and retries wait, singles are delivered", "address", w.address,
		"seconds", seconds(now.Sub(out.since)), "error", err.Error())
	return out
}

// seconds returns a duration for the log, rounded to tenths.
func seconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Millisecond)) / float64(time.Second)
}
