package stats

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/message"
)

func TestFigures(t *testing.T) {
	var c Counts
	add := func(n int64, s message.Status, r message.Reason, waiting bool) {
		c.Add(MessageState{Status: s, Reason: r, Waiting: waiting}, n)
	}
	add(140, message.Sent, "", false)
	add(5, message.Delivered, "", false)
	add(1, message.Bounced, message.SuppressedBounce, false)
	add(2, message.Failed, message.RecipientRefused, false)
	add(1, message.Skipped, message.NoRecipient, false)
	add(1, message.Unknown, message.UnknownOutcome, false)
	add(3, message.Unknown, message.UnknownOutcome, true)
	add(4, message.Pending, "", false)
	c.Cost = 146_000
	want := Figures{
		Total: 157, Sent: 146, Failed: 4, Pending: 7, Unknown: 4, SuccessRate: 92.99, Cost: 146_000,
		Reasons: map[message.Reason]int64{message.RecipientRefused: 2, message.NoRecipient: 1, message.UnknownOutcome: 1},
	}
	if d := cmp.Diff(want, Compute(157, c)); d != "" {
		t.Error(d)
	}
	if c.Settled() != 150 || c.Released() != 153 {
		t.Errorf("settled %d, released %d", c.Settled(), c.Released())
	}
	if f := Compute(0, Counts{}); f.SuccessRate != 0 || f.Pending != 0 {
		t.Errorf("an empty audience: %+v", f)
	}
	if f := Compute(1, c); f.Pending != 0 {
		t.Errorf("pending is negative: %+v", f)
	}
}
