package worker_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hibiken/asynq"

	"herald/pkg/telemetry"
	"herald/worker"
)

// What cannot be read must leave the queue: a task that fails until its retries are used up is archived, and blocks
// its id for ever.
func TestPoisonedTasksLeaveTheQueue(t *testing.T) {
	var log bytes.Buffer
	w := worker.New(worker.Deps{Telemetry: telemetry.New(slog.New(slog.NewTextHandler(&log, nil)))})
	for name, task := range map[string]*asynq.Task{
		"unknown kind": asynq.NewTask("surprise", []byte("0190a000-0000-7000-8000-000000000001")),
		"no payload":   asynq.NewTask("deliver", nil),
		"nonsense":     asynq.NewTask("deliver", []byte("\xff\x00")),
		"no id":        asynq.NewTask("wake", []byte("00000000-0000-0000-0000-000000000000")),
	} {
		log.Reset()
		if err := w.ProcessTask(t.Context(), task); err != nil {
			t.Errorf("%s: comes back: %v", name, err)
		}
		if !strings.Contains(log.String(), "read a task") {
			t.Errorf("%s: nobody is told: %q", name, log.String())
		}
	}
}

// A panic in a delivery is its task's error, and the goroutine goes on to the next task.
func TestFaultPanicEndsItsTaskOnly(t *testing.T) {
	w := worker.New(worker.Deps{Telemetry: telemetry.New(slog.New(slog.DiscardHandler))}) // without a Deliverer every delivery panics
	for range 3 {
		err := w.ProcessTask(t.Context(), asynq.NewTask("deliver", []byte("0190a000-0000-7000-8000-000000000001")))
		if err == nil || !strings.Contains(err.Error(), "panic") {
			t.Fatalf("%v", err)
		}
	}
}
