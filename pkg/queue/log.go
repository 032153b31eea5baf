package queue

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// asynqLog passes Asynq's messages to slog. They contain queue names, task ids and errors of Redis, and no personal data.
//
// Each server has several loops that report every failed call to Redis: a worker would write ten lines a second while Redis is
// down. So the first message of a kind is logged, and those of the same kind within quietTime after it only at DEBUG. It is safe
// for concurrent use, and all servers of a process share one.
type asynqLog struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[string]*quietKind
}

// quietKind is a kind of message that was logged.
type quietKind struct {
	until  time.Time // logged at DEBUG until then
	hidden int       // how many were
}

const (
	quietTime = time.Minute
	maxKinds  = 200 // Asynq has about forty texts; the bound is for texts that begin with something variable
)

func newAsynqLog(log *slog.Logger) *asynqLog {
	return &asynqLog{log: log.With("component", "asynq"), kinds: map[string]*quietKind{}}
}

// kindOf returns the constant beginning of a message: the part before an error, a name, an id or a list.
func kindOf(text string) string {
	if i := strings.IndexAny(text, ":;=\"[\n0123456789"); i >= 0 {
		return text[:i]
	}
	return text
}

func (l *asynqLog) at(level slog.Level, args []any) {
	text := fmt.Sprint(args...)
	if level <= slog.LevelDebug {
		l.log.Log(context.Background(), level, text)
		return
	}
	hidden, quiet := l.quiet(kindOf(text), time.Now())
	switch {
	case quiet:
		l.log.Debug(text)
	case hidden > 0:
		l.log.Log(context.Background(), level, text, "repeated", hidden)
	default:
		l.log.Log(context.Background(), level, text)
	}
}

// quiet reports whether a kind of message was logged within quietTime, and otherwise how many of it were hidden since.
func (l *asynqLog) quiet(kind string, now time.Time) (hidden int, quiet bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k != nil && now.Before(k.until) {
		k.hidden++
		return 0, true
	}
	if k != nil {
		hidden = k.hidden
	} else if len(l.kinds) >= maxKinds {
		clear(l.kinds)
	}
	l.kinds[kind] = &quietKind{until: now.Add(quietTime)}
	return hidden, false
}

// Debug implements asynq.Logger.
func (l *asynqLog) Debug(args ...any) { l.at(slog.LevelDebug, args) }

// Info implements asynq.Logger. It tells what Asynq does at its start and end.
func (l *asynqLog) Info(args ...any) { l.at(slog.LevelDebug, args) }

// Warn implements asynq.Logger.
func (l *asynqLog) Warn(args ...any) { l.at(slog.LevelWarn, args) }

// Error implements asynq.Logger.
func (l *asynqLog) Error(args ...any) { l.at(slog.LevelError, args) }

// Fatal implements asynq.Logger. Asynq expects it to end the process; the supervisor's health check decides that instead.
func (l *asynqLog) Fatal(args ...any) { l.at(slog.LevelError, args) }
