package delivery_test

import (
	"fmt"
	"testing"

	"herald/pkg/delivery"
	"herald/pkg/message"
)

func refusal(reason message.Reason, code string, pauseAfter int) delivery.Response {
	return delivery.Response{
		Class: delivery.Refused, Scope: delivery.ScopeMessage, Reason: reason, HTTPStatus: 400, PauseAfter: pauseAfter,
		Failure: &message.Failure{Code: code, Text: "no"},
	}
}

// A channel is paused by the last of twenty different recipients in a row that were refused with the same code. An acceptance
// in between, another code, the same recipient, and recipients that do not exist do not count.
func TestCaseRefusalsInARow(t *testing.T) {
	type call struct {
		to     int
		answer delivery.Response
	}
	row := func(n int, answer delivery.Response) (calls []call) {
		for i := range n {
			calls = append(calls, call{i, answer})
		}
		return calls
	}
	unknown := refusal(message.ProviderRefused, "99", 0)
	const why = "the provider refused 20 recipients in a row with the code 99: no"
	for name, c := range map[string]struct {
		calls  []call
		paused string
	}{
		"twenty":                     {row(20, unknown), why},
		"nineteen":                   {row(19, unknown), ""},
		"one accepted in between":    {append(append(row(19, unknown), call{50, accepted}), call{51, unknown}), ""},
		"another code in between":    {append(append(row(19, unknown), call{50, refusal(message.ProviderRefused, "98", 0)}), call{51, unknown}), ""},
		"the same recipient":         {append(row(19, unknown), row(19, unknown)...), ""},
		"recipients without phones":  {row(40, refusal(message.RecipientRefused, "21211", 0)), ""},
		"recipients that opted out":  {row(40, refusal(message.ConsentRefused, "21610", 0)), ""},
		"five of a permission error": {row(5, refusal(message.ProviderRefused, "10/7", 5)), "the provider refused 5 recipients in a row with the code 10/7: no"},
		"four of a permission error": {row(4, refusal(message.ProviderRefused, "10/7", 5)), ""},
		"the content of all":         {row(20, refusal(message.ContentRefused, "99", 0)), why},
	} {
		f := newFakes(t)
		for i, call := range c.calls {
			r := newRig(t, nil)
			r.ch, r.answers = f.ch, []delivery.Response{call.answer}
			r.deps.Refusals, r.deps.Channels = f, f
			r.row.loaded.Message.ChannelID = f.ch.ID
			r.row.loaded.Message.Recipient = fmt.Sprintf("p%d@example.com", call.to)
			if r.run(); r.sends != 1 {
				t.Fatalf("%s: call %d: %d calls", name, i, r.sends)
			}
			if o := r.outcome(); call.answer.Class == delivery.Refused && o.Status != message.Failed {
				t.Errorf("%s: the message is %s", name, o.Status)
			}
			if f.paused != "" && i < len(c.calls)-1 {
				t.Fatalf("%s: paused after %d calls", name, i+1)
			}
		}
		if f.paused != c.paused {
			t.Errorf("%s: paused %q, want %q", name, f.paused, c.paused)
		}
	}
}
