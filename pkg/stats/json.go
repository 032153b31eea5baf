package stats

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"herald/pkg/message"
)

// countsJSON is the stored form of Counts. Its keys are names, "FAILED/unreachable" or "UNKNOWN/outcome_unknown/waiting", so that
// a stored tally does not depend on the numbers of the codes.
type countsJSON struct {
	By   map[string]int64 `json:"by"`
	Cost message.Micros   `json:"cost"`
}

// MarshalJSON writes the counts by the names of status and reason.
func (c Counts) MarshalJSON() ([]byte, error) {
	out := countsJSON{By: make(map[string]int64, len(c.By)), Cost: c.Cost}
	for code, n := range c.By {
		out.By[code.name()] = n
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote, and the numeric keys that earlier versions stored. It rejects names that no
// code has.
func (c *Counts) UnmarshalJSON(b []byte) error {
	var in countsJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	*c = Counts{By: make(map[StateCode]int64, len(in.By)), Cost: in.Cost}
	for key, n := range in.By {
		s, err := parseState(key)
		if err != nil {
			return err
		}
		c.By[s.Code()] += n
	}
	return nil
}

func (c StateCode) name() string {
	s := decoded[c]
	switch {
	case s.Waiting:
		return strings.Join([]string{string(s.Status), string(s.Reason), "waiting"}, "/")
	case s.Reason != message.NoReason:
		return string(s.Status) + "/" + string(s.Reason)
	}
	return string(s.Status)
}

func parseState(key string) (MessageState, error) {
	if n, err := strconv.ParseUint(key, 10, 8); err == nil {
		return numericState(int(n))
	}
	status, rest, _ := strings.Cut(key, "/")
	reason, waiting, _ := strings.Cut(rest, "/")
	s := MessageState{Status: message.Status(status), Reason: message.Reason(reason), Waiting: waiting == "waiting"}
	if code := s.Code(); code == 0 || code.name() != key {
		return s, fmt.Errorf("counts: unknown state %q", key)
	}
	return s, nil
}

// numericReasons numbers the reasons of numeric keys. It is the list of the last version that stored them, and never changes.
var numericReasons = []message.Reason{
	message.NoReason, message.NoRecipient, message.InvalidRecipient, message.DuplicateRecipient, message.Unsubscribed,
	message.SuppressedBounce, message.Complained, message.ManuallySuppressed, message.WasCancelled, message.UnknownOutcome,
	message.RecipientRefused, message.ConsentRefused, message.ContentRefused, message.SenderRefused, message.OutsideWindow,
	message.ProviderRefused, message.RenderInvalid, message.ChannelCredentials, message.ChannelRefused, message.Unreachable,
	message.ProviderUnavailable, message.Poison, message.Erased, message.RenderCrashed, message.ChannelDeleted,
}

// numericStates lists the ranks of numeric keys. Each rank owned 28 numbers, from 1.
var numericStates = []MessageState{
	{Status: message.Unknown, Waiting: true}, {Status: message.Unknown}, {Status: message.Cancelled}, {Status: message.Skipped},
	{Status: message.Failed}, {Status: message.Sent}, {Status: message.Delivered}, {Status: message.Read}, {Status: message.Bounced},
}

const numericWidth = 28

func numericState(n int) (MessageState, error) {
	rank, reason := (n-1)/numericWidth, (n-1)%numericWidth
	if n < 1 || rank >= len(numericStates) || reason >= len(numericReasons) {
		return MessageState{}, fmt.Errorf("counts: unknown state %d", n)
	}
	s := numericStates[rank]
	s.Reason = numericReasons[reason]
	return s, nil
}
