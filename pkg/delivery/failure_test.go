package delivery_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"herald/pkg/message"
)

// A template that cannot be rendered fails its message with the reason; one that cannot be read is the task's error.
func TestRenderingThatFails(t *testing.T) {
	r := newRig(t, nil)
	r.content.Text = "{{ nothing }}"
	res := r.run()
	if o := r.outcome(); o.Status != message.Failed || o.Reason != message.RenderInvalid || o.Failure == nil || o.Failure.Code != "render_invalid" || !o.GiveBack || len(r.asked) != 0 {
		t.Errorf("%+v, outcome %+v", res, o)
	}
	r = newRig(t, single)
	r.row.loaded.Message.Content = &message.Content{Subject: "s", Text: "{% if %}"}
	if _, err := r.d().Run(t.Context(), r.row.loaded.Message.ID); !message.IsCode(err, message.CodeInvalid) || r.sends != 0 {
		t.Errorf("a single that does not compile: %v", err)
	}
}

// A suspect's rendering is recorded before it begins, and the record is removed when it ended, also while the worker stops.
func TestASuspectIsOnRecordWhileItIsRendered(t *testing.T) {
	want := []message.Suspect{message.SuspectRendering, message.Suspected}
	r := newRig(t, suspect)
	r.onRead = func() {
		if !slices.Equal(r.row.suspects, want[:1]) {
			t.Errorf("while it is rendered: %v", r.row.suspects)
		}
	}
	if res := r.run(); res.Status != message.Sent || !slices.Equal(r.row.suspects, want) {
		t.Errorf("%+v, %v", res, r.row.suspects)
	}
	r = newRig(t, suspect)
	r.content.Text = "{{ 't' | upcase }}"
	ctx, cancel := context.WithCancel(t.Context())
	r.onRead = cancel
	if _, err := r.d().Run(ctx, r.row.loaded.Message.ID); err == nil || !slices.Equal(r.row.suspects, want) {
		t.Errorf("stopped: %v, %v", err, r.row.suspects)
	}
	if r = newRig(t, nil); r.run().Status != message.Sent || len(r.row.suspects) != 0 {
		t.Errorf("not a suspect: %v", r.row.suspects)
	}
	r = newRig(t, suspect)
	r.failing(errGone, 1, "Suspect")
	if _, err := r.d().Run(t.Context(), r.row.loaded.Message.ID); !errors.Is(err, errGone) || r.sends != 0 {
		t.Errorf("not on record: %v, %d calls", err, r.sends)
	}
}

// A panic makes a suspect of a message that was not claimed, uses an attempt of one that was, and the second one ends it.
func TestPanics(t *testing.T) {
	r := newRig(t, func(r *rig, _ *message.Message) { r.row.plain = false })
	r.panics = true
	_, err := r.d().Run(t.Context(), r.row.loaded.Message.ID)
	if err == nil || !strings.Contains(err.Error(), "panic: limiter\n") || !strings.Contains(err.Error(), "fakes_test.go") {
		t.Errorf("%v", err)
	}
	if !slices.Equal(r.row.suspects, []message.Suspect{message.Suspected}) || len(r.row.outcomes) != 0 || r.events[0].Err == nil {
		t.Errorf("%v, %+v", r.row.suspects, r.row.outcomes)
	}
	res := r.run()
	want := written{
		Status: message.Failed, Reason: message.RenderCrashed,
		Failure: &message.Failure{Code: "render_crashed", Text: "the delivery of the message failed twice with a panic"},
	}
	if got := r.outcome(); !reflect.DeepEqual(got, want) || res.Status != message.Failed || r.events[1].Err == nil {
		t.Errorf("%+v, outcome %+v, event %+v", res, got, r.events[1])
	}
	r = newRig(t, func(_ *rig, m *message.Message) { m.Part, m.Reason = 1, message.Unreachable })
	r.panics = true
	if _, err = r.d().Run(t.Context(), r.row.loaded.Message.ID); err == nil {
		t.Error("no error")
	}
	want = written{Status: message.Pending, Part: 1, Reason: message.Unreachable, Again: time.Second + r.deps.Timing.Watch}
	if got := r.outcome(); !reflect.DeepEqual(got, want) || r.row.loaded.Message.Attempt != 1 || len(r.row.suspects) != 0 {
		t.Errorf("claimed: %+v, attempt %d", got, r.row.loaded.Message.Attempt)
	}
}

// An error before the call releases the claim. An error of the release is returned too.
func TestAnErrorBeforeTheCallGivesTheClaimBack(t *testing.T) {
	r := newRig(t, func(_ *rig, m *message.Message) { m.Part, m.Reason = 1, message.Unreachable })
	r.missing = errOther
	if _, err := r.d().Run(t.Context(), r.row.loaded.Message.ID); !errors.Is(err, errOther) {
		t.Errorf("%v", err)
	}
	want := written{Status: message.Pending, Part: 1, GiveBack: true, Reason: message.Unreachable, Again: time.Second + r.deps.Timing.Watch}
	if got := r.outcome(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	r = newRig(t, nil)
	r.missing = errOther
	r.failing(errRefused, 9, "Settle")
	_, err := r.d().Run(t.Context(), r.row.loaded.Message.ID)
	if !errors.Is(err, errOther) || !errors.Is(err, errRefused) || !errors.Is(r.events[0].Err, errRefused) {
		t.Errorf("%v, event %v", err, r.events[0].Err)
	}
}

// A panic before the claim of a single within its request is not held against the message: the caller may be at fault, and
// the worker that gets the message finds out.
func TestAPanicWithinARequestIsNoSuspicion(t *testing.T) {
	r := newRig(t, nil)
	r.ch.RatePerSecond, r.panics = 1, true
	if sent := r.send(); sent.Status != message.Queued || len(r.row.suspects) != 0 || len(r.row.outcomes) != 0 {
		t.Errorf("%+v, suspects %v, outcomes %+v", sent.Result, r.row.suspects, r.row.outcomes)
	}
}
