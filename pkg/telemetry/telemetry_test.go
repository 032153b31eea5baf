package telemetry

import (
	"bytes"
	"context"
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
)

// Neither logs nor metrics hold an address or a text.
func TestNoPersonalDataIsSeen(t *testing.T) {
	var log bytes.Buffer
	tel := New(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	m := &message.Message{
		ID: uuid.New(), BulkID: uuid.New(), ChannelType: message.Email, Recipient: "canary@example.com", Content: &message.Content{Text: "canary text"},
	}
	tel.Delivered(t.Context(), delivery.Event{Message: m, Provider: "sendgrid", Status: message.Failed, Reason: message.RecipientRefused, Send: time.Second, Again: time.Second, Fenced: true, Err: errors.New("x")})
	tel.BulkEvent(t.Context(), "planned", m.BulkID, "total", 3)
	tel.BulkError(t.Context(), "feed", m.BulkID, errors.New("x"))
	tel.Request(t.Context(), Request{Method: "POST", Route: "/api/x", Status: 500, Duration: time.Second, ID: "id", Caller: "key", Err: errors.New("x")})
	a, moved, err := tel.StartAdmin(AdminOptions{Addr: "127.0.0.1:0", Default: true, Health: func(context.Context) Health {
		return Health{Ready: true, Degraded: true, Parts: map[string]error{"redis": errors.New("secret reason"), "database": nil}}
	}})
	if err != nil || moved {
		t.Fatal(err, moved)
	}
	defer a.Stop()
	get := func(path string) string {
		res, err := http.Get("http://" + a.Addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return string(b)
	}
	metrics := get("/metrics")
	for _, s := range []string{metrics, log.String()} {
		if strings.Contains(s, "canary") {
			t.Errorf("personal data: %s", s)
		}
	}
	if !strings.Contains(metrics, `herald_deliveries_total{provider="sendgrid",reason="recipient_refused",status="FAILED",type="EMAIL"} 1`) {
		t.Error("the delivery is not counted")
	}
	if !strings.Contains(log.String(), m.ID.String()) || strings.Count(log.String(), "\n") != 4 {
		t.Errorf("log %s", log.String())
	}
	var health map[string]any
	if err := json.Unmarshal([]byte(get("/readyz")), &health); err != nil || health["status"] != "degraded" || strings.Contains(get("/readyz"), "secret reason") {
		t.Errorf("%v %v", health, err)
	}
}
