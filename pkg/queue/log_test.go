package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Asynq's messages have one text, name their component, and do not flood while Redis is down.
func TestIntegrationAsynqDoesNotFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		l := newAsynqLog(slog.New(slog.NewJSONHandler(&buf, &slog.HandlerOptions{Level: slog.LevelInfo})))
		refused := errors.New("dial tcp 127.0.0.1:6379: connect: connection refused")
		for range 8 { // seconds
			for server := range 13 {
				l.Error(fmt.Sprintf("Dequeue error: %v", refused))
				l.Error(fmt.Sprintf("Failed to write server state data: %v", refused))
				l.Error(fmt.Sprintf("Failed to delete expired completed tasks from queue %q: %v", fmt.Sprint("queue", server), refused))
				l.Warn(fmt.Sprintf("recoverer: could not list lease expired tasks: %v", refused))
				l.Info("Starting processing")
			}
			<-time.After(time.Second)
		}
		if n := strings.Count(buf.String(), "\n"); n != 4 {
			t.Errorf("%d lines in 8 s, want one of each kind: %s", n, &buf)
		}
		for line := range strings.Lines(buf.String()) {
			var got map[string]any
			if err := json.Unmarshal([]byte(line), &got); err != nil || got["component"] != "asynq" || strings.Count(line, `"msg"`) != 1 || !strings.Contains(line, "connection refused") {
				t.Errorf("%v in %s", err, line)
			}
		}
		buf.Reset()
		<-time.After(quietTime)
		l.Error(fmt.Sprintf("Dequeue error: %v", refused))
		if !strings.Contains(buf.String(), `"level":"ERROR"`) || !strings.Contains(buf.String(), `"repeated":103`) {
			t.Errorf("after a minute: %s", &buf)
		}
	})
}

// Hidden messages are there at DEBUG, and the memory of kinds is bounded.
func TestIntegrationHiddenMessagesOfAsynqAreDebug(t *testing.T) {
	var buf bytes.Buffer
	l := newAsynqLog(slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})))
	l.Warn("Quitting worker. task id=1")
	l.Warn("Quitting worker. task id=2")
	if !strings.Contains(buf.String(), "level=WARN msg=\"Quitting worker. task id=1\"") || !strings.Contains(buf.String(), "level=DEBUG msg=\"Quitting worker. task id=2\"") {
		t.Error(buf.String())
	}
	for i := range 10 * maxKinds {
		l.Warn(strings.Repeat("x", i))
	}
	if len(l.kinds) > maxKinds {
		t.Errorf("%d kinds are remembered", len(l.kinds))
	}
}
