package stats

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"herald/pkg/message"
)

// eachState calls f with every state that the ranges declare, in the order of their codes.
func eachState(f func(r codeRange, s MessageState)) {
	for _, r := range codeRanges {
		f(r, MessageState{Status: r.status, Waiting: r.waiting})
		for _, reason := range r.reasons {
			f(r, MessageState{Status: r.status, Reason: reason, Waiting: r.waiting})
		}
	}
}

func TestStateCodesRoundTrip(t *testing.T) {
	eachState(func(_ codeRange, want MessageState) {
		code := want.Code()
		status, reason, waiting := code.State()
		if got := (MessageState{Status: status, Reason: reason, Waiting: waiting}); got != want {
			t.Errorf("%+v has code %d, which is %+v", want, code, got)
		}
	})
	for _, s := range message.Open {
		m := MessageState{Status: s}
		if m.Code() != 0 || m.Floor() != 0 {
			t.Errorf("%s has code %d, floor %d", s, m.Code(), m.Floor())
		}
	}
	if status, reason, waiting := StateCode(0).State(); status != message.Pending || reason != "" || waiting {
		t.Errorf("code 0 is %s %s %v", status, reason, waiting)
	}
}

// The ranges follow the ranks of the statuses, do not overlap, and have room for their reasons: a floor above a code means a
// higher rank, and nothing else does.
func TestRangesPreserveTheOrderOfTheRanks(t *testing.T) {
	var order []message.Status
	end := 1
	for _, r := range codeRanges {
		if !r.waiting {
			order = append(order, r.status)
		}
		if int(r.first) < end {
			t.Errorf("%s begins at %d, below the end of the range before it, %d", r.status, r.first, end)
		}
		if end = int(r.first) + r.size; end > 256 || len(r.reasons) >= r.size {
			t.Errorf("%s: %d reasons in %d codes from %d", r.status, len(r.reasons), r.size, r.first)
		}
	}
	if d := cmp.Diff(message.Settled, order); d != "" {
		t.Errorf("ranges and ranks differ: %s", d)
	}
	eachState(func(_ codeRange, older MessageState) {
		eachState(func(_ codeRange, newer MessageState) {
			higher := older.Status.Rank() < newer.Status.Rank() || older.Waiting && !newer.Waiting
			if higher && older.Code() >= newer.Floor() || !higher && older.Code() < newer.Floor() {
				t.Fatalf("%+v (code %d) and %+v (floor %d)", older, older.Code(), newer, newer.Floor())
			}
		})
	})
}

// A reason that no status declares would be missing in the statistics of its bulk.
func TestEveryReasonHasACode(t *testing.T) {
	for _, reason := range message.Reasons() {
		if reason == message.UnknownOutcome {
			continue // UNKNOWN only
		}
		ends := slices.ContainsFunc(codeRanges, func(r codeRange) bool {
			return r.status != message.Unknown && slices.Contains(r.reasons, reason)
		})
		if !ends {
			t.Errorf("%s has no code outside UNKNOWN", reason)
		}
		if _, got, _ := (MessageState{Status: message.Unknown, Reason: reason}).Code().State(); got != reason {
			t.Errorf("UNKNOWN %s is counted as %q", reason, got)
		}
	}
	if code := (MessageState{Status: message.Sent, Reason: message.Poison}).Code(); code != (MessageState{Status: message.Sent}).Code() {
		t.Errorf("SENT with a reason of FAILED has code %d", code)
	}
	if code := (MessageState{Status: message.Failed, Waiting: true}).Code(); code != 1 {
		t.Errorf("a waiting message has code %d, want 1 (UNKNOWN) for any status", code)
	}
}

// The codes are stored in Redis: a range must not move, and a reason must not change its place.
func TestStateCodesAreStable(t *testing.T) {
	for code, want := range map[StateCode]MessageState{
		1:   {Status: message.Unknown, Waiting: true},
		2:   {Status: message.Unknown, Reason: message.UnknownOutcome, Waiting: true},
		5:   {Status: message.Unknown},
		14:  {Status: message.Unknown, Reason: message.UnknownOutcome},
		29:  {Status: message.Unknown, Reason: message.ChannelDeleted},
		78:  {Status: message.Cancelled, Reason: message.WasCancelled},
		94:  {Status: message.Skipped, Reason: message.NoRecipient},
		101: {Status: message.Skipped, Reason: message.Erased},
		126: {Status: message.Failed, Reason: message.RecipientRefused},
		139: {Status: message.Failed, Reason: message.ChannelDeleted},
		181: {Status: message.Sent}, 193: {Status: message.Delivered}, 201: {Status: message.Read},
		214: {Status: message.Bounced, Reason: message.SuppressedBounce},
	} {
		if got := want.Code(); got != code {
			t.Errorf("%+v has code %d, want %d", want, got, code)
		}
	}
}

func TestCountsAreStoredByName(t *testing.T) {
	c := Counts{Cost: 42}
	n := int64(0)
	eachState(func(_ codeRange, s MessageState) { n++; c.Add(s, n) })
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{`"SENT":`, `"FAILED/unreachable":`, `"UNKNOWN/outcome_unknown":`, `"UNKNOWN/outcome_unknown/waiting":`, `"cost":42`} {
		if !strings.Contains(string(b), key) {
			t.Errorf("%s lacks %s", b, key)
		}
	}
	var got Counts
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(c, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{`{"by":{"LOST":1}}`, `{"by":{"FAILED/no_recipient":1}}`, `{"by":{"SENT/waiting":1}}`, `{"by":{"PENDING":1}}`, `{"by":[]}`} {
		if err := json.Unmarshal([]byte(bad), new(Counts)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// Finished bulks of earlier versions store a number for each state: (rank-1)*28 + the number of the reason + 1.
func TestCountsOfEarlierVersionsAreRead(t *testing.T) {
	var got Counts
	stored := `{"by":{"10":3,"38":1,"65":2,"86":4,"107":7,"123":1,"137":1,"141":140,"169":5,"230":1},"cost":9}`
	if err := json.Unmarshal([]byte(stored), &got); err != nil {
		t.Fatal(err)
	}
	want := Counts{Cost: 9}
	for _, s := range []struct {
		n int64
		MessageState
	}{
		{3, MessageState{Status: message.Unknown, Reason: message.UnknownOutcome, Waiting: true}},
		{1, MessageState{Status: message.Unknown, Reason: message.UnknownOutcome}},
		{2, MessageState{Status: message.Cancelled, Reason: message.WasCancelled}},
		{4, MessageState{Status: message.Skipped, Reason: message.NoRecipient}},
		{7, MessageState{Status: message.Skipped, Reason: message.Erased}},
		{1, MessageState{Status: message.Failed, Reason: message.RecipientRefused}},
		{1, MessageState{Status: message.Failed, Reason: message.ChannelDeleted}},
		{140, MessageState{Status: message.Sent}},
		{5, MessageState{Status: message.Delivered}},
		{1, MessageState{Status: message.Bounced, Reason: message.SuppressedBounce}},
	} {
		want.Add(s.MessageState, s.n)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{`{"by":{"0":1}}`, `{"by":{"253":1}}`, `{"by":{"28":1}}`} {
		if err := json.Unmarshal([]byte(bad), new(Counts)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
