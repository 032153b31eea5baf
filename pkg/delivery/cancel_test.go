package delivery_test

import (
	"context"
	"errors"
	"testing"

	"herald/pkg/delivery"
	"herald/pkg/message"
)

// A worker that stops while it renders says nothing of the template: the message is not FAILED, and goes later.
func TestFaultACancelledRenderingFailsNoMessage(t *testing.T) {
	w := newWorld(t)
	w.answers = []delivery.Response{accepted}
	w.content.Text = "{{ 't' | upcase }}"
	id := w.row(nil)
	ctx, cancel := context.WithCancel(t.Context())
	w.onRead = cancel
	if _, err := w.d().Run(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if m := w.load(id); m.Status != message.Pending || w.sends != 0 {
		t.Errorf("%+v, %d sends", m, w.sends)
	}
	w.onRead = nil
	if res := w.run(id); res.Status != message.Sent {
		t.Errorf("%+v", res)
	}
}
