package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/delivery"
	"herald/pkg/message"
	"herald/pkg/version"
)

// lines returns the log lines that fn writes, decoded.
func lines(t *testing.T, fn func(t *Telemetry)) []map[string]any {
	t.Helper()
	var log bytes.Buffer
	fn(New(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	var all []map[string]any
	for dec := json.NewDecoder(&log); ; {
		var line map[string]any
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, line)
	}
}

// has fails the test unless a line has these attributes.
func has(t *testing.T, line map[string]any, want map[string]any) {
	t.Helper()
	for name, v := range want {
		if line[name] != v {
			t.Errorf("%s is %v, want %v: %v", name, line[name], v, line)
		}
	}
}

func TestIntegrationRequestLines(t *testing.T) {
	got := lines(t, func(tel *Telemetry) {
		tel.Request(t.Context(), Request{
			Method: "GET", Route: "/api/leads/:id", Path: "/api/leads/01a20960-62a9-7aff-9ba4-ab08429b828e", Remote: "192.0.2.7", Status: 404,
			Duration: 1234567 * time.Nanosecond, ID: "r1",
		})
	})
	if len(got) != 1 {
		t.Fatalf("%d lines", len(got))
	}
	has(t, got[0], map[string]any{"msg": "request", "path": "/api/leads/01a20960-62a9-7aff-9ba4-ab08429b828e", "remote": "192.0.2.7", "duration_ms": 1.234, "status": 404.0})
	if _, old := got[0]["duration"]; old {
		t.Error("a duration without a unit is left")
	}
}

// A delivery's line tells what came of it. Only one that was sent says so.
func TestIntegrationDeliveryLines(t *testing.T) {
	m := &message.Message{ID: uuid.New(), ChannelType: message.SMS}
	for want, e := range map[string]delivery.Event{
		"sent":    {Message: m, Status: message.Sent, Class: delivery.Accepted, Duration: 2 * time.Millisecond, Send: time.Millisecond},
		"failed":  {Message: m, Status: message.Failed, Class: delivery.Refused},
		"skipped": {Message: m, Status: message.Skipped},
		"unknown": {Message: m, Status: message.Unknown, Class: delivery.Unknown, Again: time.Minute},
		"retry":   {Message: m, Status: message.Queued, Class: delivery.NotSent, Again: time.Second},
		"waiting": {Message: m, Status: message.Queued, Again: 3 * time.Second},
		"error":   {Message: m, Err: errors.New("x")},
	} {
		got := lines(t, func(tel *Telemetry) { tel.Delivered(t.Context(), e) })
		if len(got) != 1 {
			t.Fatalf("%s: %d lines", want, len(got))
		}
		has(t, got[0], map[string]any{"msg": "delivery", "outcome": want, "duration_ms": float64(e.Duration.Milliseconds()), "send_ms": float64(e.Send.Milliseconds())})
		if e.Again > 0 {
			has(t, got[0], map[string]any{"again_ms": float64(e.Again.Milliseconds())})
		}
	}
}

// A single that waits is told once, again when something changes, and again when it waits anew after its end.
func TestIntegrationAWaitingSingleIsLoggedOnce(t *testing.T) {
	m, other := &message.Message{ID: uuid.New(), ChannelType: message.SMS}, &message.Message{ID: uuid.New(), ChannelType: message.SMS}
	waits := delivery.Event{Message: m, Status: message.Queued, Again: 3 * time.Second}
	refused := delivery.Event{Message: m, Status: message.Queued, Class: delivery.NotSent, Reason: message.ProviderUnavailable, Again: time.Second}
	got := lines(t, func(tel *Telemetry) {
		for range 100 {
			tel.Delivered(t.Context(), waits)
		}
		tel.Delivered(t.Context(), delivery.Event{Message: other, Status: message.Queued, Again: 3 * time.Second})
		for range 100 {
			tel.Delivered(t.Context(), refused)
		}
		tel.Delivered(t.Context(), delivery.Event{Message: m, Status: message.Sent, Class: delivery.Accepted})
		if tel.waits.Contains(m.ID) || !tel.waits.Contains(other.ID) {
			t.Error("the end of a wait is not forgotten")
		}
	})
	var told []string
	for _, line := range got {
		if line["level"] == "INFO" {
			told = append(told, line["outcome"].(string))
		}
	}
	if strings.Join(told, " ") != "waiting waiting retry sent" || len(got) != 202 {
		t.Errorf("told %v in %d lines", told, len(got))
	}
}

func TestIntegrationTheAdminAddressTellsTheVersion(t *testing.T) {
	a := startAdmin(t, AdminOptions{Addr: "127.0.0.1:0"})
	res, err := http.Get("http://" + a.Addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got map[string]string
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || got["status"] != "ok" || got["version"] != version.Get().Version || got["version"] == "" {
		t.Errorf("%v %v", got, err)
	}
}
