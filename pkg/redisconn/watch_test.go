package redisconn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An outage of Redis is one WARN at its begin, reminders with growing intervals, and one INFO at its end.
func TestIntegrationAnOutageOfRedisIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var down atomic.Bool
		var pings atomic.Int32
		began := time.Now()
		w := StartWatch(func(ctx context.Context) error {
			pings.Add(1)
			if _, ok := ctx.Deadline(); !ok {
				t.Error("a ping may hang for ever")
			}
			if down.Load() {
				return errors.New("connection refused")
			}
			return nil
		}, "redis.test:6379", slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.String("at", fmt.Sprint(time.Since(began).Truncate(time.Second)))
			}
			return a
		}})))
		<-time.After(30*time.Second + watchInterval/2) // between two pings
		if log.Len() > 0 {
			t.Fatalf("a Redis that answers is told: %s", &log)
		}
		down.Store(true)
		<-time.After(5 * time.Minute)
		down.Store(false)
		<-time.After(time.Minute)
		w.Stop()
		var got []string
		for line := range strings.Lines(log.String()) {
			at, rest, _ := strings.Cut(line, " ")
			level, _, _ := strings.Cut(rest, " ")
			got = append(got, at+" "+level)
			if !strings.Contains(line, "address=redis.test:6379") || !strings.Contains(line, "component=redis") {
				t.Errorf("a line without the address or its component: %s", line)
			}
		}
		// After 10, 20, 40, 80 and 160 more seconds; the next reminder would come after the end.
		want := []string{"at=31s level=WARN", "at=41s level=WARN", "at=1m1s level=WARN", "at=1m41s level=WARN", "at=3m1s level=WARN", "at=5m31s level=INFO"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s in %s", d, &log)
		}
		if !strings.Contains(log.String(), "seconds=300") || !strings.Contains(log.String(), "connection refused") {
			t.Errorf("neither the duration nor the cause: %s", &log)
		}
		if n := pings.Load(); n != 391 {
			t.Errorf("%d pings in 390 s", n)
		}
	})
}

// A reminder comes at least every five minutes, and a second outage begins like the first.
func TestIntegrationRemindersHaveABound(t *testing.T) {
	var log bytes.Buffer
	w := &Watch{address: "x", log: slog.New(slog.NewTextHandler(&log, nil))}
	now, out := time.Now(), outage{}
	for range 3 * 3600 {
		now = now.Add(time.Second)
		out = w.tell(t.Context(), out, errors.New("down"), now)
	}
	lines := strings.Count(log.String(), "WARN")
	if lines < 36 || lines > 42 {
		t.Errorf("%d lines in three hours", lines)
	}
	out = w.tell(t.Context(), out, nil, now)
	w.tell(t.Context(), out, errors.New("down"), now.Add(time.Second))
	if n := strings.Count(log.String(), "WARN"); n != lines+1 {
		t.Errorf("%d lines for a second outage", n-lines)
	}
}

func TestIntegrationTheAddressHasNoPassword(t *testing.T) {
	for url, want := range map[string]string{
		"redis://user:secret@redis.test:6380/1": "redis.test:6380", "rediss://:secret@redis.test": "redis.test:6379", "unix://user:secret@/run/redis.sock": "/run/redis.sock", "nonsense": "",
	} {
		if got := Address(url); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
}
