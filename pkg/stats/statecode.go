package stats

import (
	"slices"

	"herald/pkg/message"
)

// StateCode encodes the status and reason of a settled or waiting message in one byte. 0 is an open message. Each status owns a
// range of codes, and the ranges follow the ranks of the statuses. A message's code may only be replaced by a code of a higher
// range, so counting a message twice, or in any order, has the same result as counting it once.
type StateCode byte

// codeRange declares the codes of one status. Codes are stored in Redis while a bulk is running, so a range is never moved,
// and reasons are only appended to it.
type codeRange struct {
	status  message.Status
	waiting bool // UNKNOWN that will be sent once more unless an event settles it first
	first   StateCode
	size    int
	reasons []message.Reason // the n-th has the code first+n+1; first itself is no reason
}

// codeRanges lists the statuses in the order of their ranks. The gaps between the ranges leave room for eight-code ranges of
// later statuses, and every range leaves room for later reasons. A new status needs an entry here and one in message.Settled.
var codeRanges = []codeRange{
	{message.Unknown, true, 1, 4, []message.Reason{message.UnknownOutcome}},
	{message.Unknown, false, 5, 64, message.Reasons()},
	{message.Cancelled, false, 77, 8, []message.Reason{message.WasCancelled}},
	{message.Skipped, false, 93, 32, []message.Reason{
		message.NoRecipient, message.InvalidRecipient, message.DuplicateRecipient, message.Unsubscribed, message.SuppressedBounce,
		message.Complained, message.ManuallySuppressed, message.Erased,
	}},
	{message.Failed, false, 125, 48, []message.Reason{
		message.RecipientRefused, message.ConsentRefused, message.ContentRefused, message.SenderRefused, message.OutsideWindow,
		message.ProviderRefused, message.RenderInvalid, message.ChannelCredentials, message.ChannelRefused, message.Unreachable,
		message.ProviderUnavailable, message.Poison, message.RenderCrashed, message.ChannelDeleted,
	}},
	{message.Sent, false, 181, 4, nil},
	{message.Delivered, false, 193, 4, nil},
	{message.Read, false, 201, 4, nil},
	{message.Bounced, false, 213, 32, []message.Reason{message.SuppressedBounce, message.RecipientRefused}},
}

// decoded maps every code to its state; codes that no range declares have an open status.
var decoded = decodeAll()

func decodeAll() (all [256]MessageState) {
	for i := range all {
		all[i].Status = message.Pending
	}
	for _, r := range codeRanges {
		for n := range len(r.reasons) + 1 {
			s := MessageState{Status: r.status, Waiting: r.waiting}
			if n > 0 {
				s.Reason = r.reasons[n-1]
			}
			all[int(r.first)+n] = s
		}
	}
	return all
}

// rangeOf returns the codes of a state, nil for an open one. A waiting message is UNKNOWN; its status is ignored.
func rangeOf(status message.Status, waiting bool) *codeRange {
	i := slices.IndexFunc(codeRanges, func(r codeRange) bool { return r.waiting == waiting && (waiting || r.status == status) })
	if i < 0 {
		return nil
	}
	return &codeRanges[i]
}

// Code returns the state's code, 0 for an open message. A reason that the status does not declare is dropped.
func (m MessageState) Code() StateCode {
	r := rangeOf(m.Status, m.Waiting)
	if r == nil {
		return 0
	}
	return r.first + StateCode(slices.Index(r.reasons, m.Reason)+1)
}

// Floor returns the first code of the state's range. Any smaller code has a lower rank.
func (m MessageState) Floor() StateCode {
	if r := rangeOf(m.Status, m.Waiting); r != nil {
		return r.first
	}
	return 0
}

// State returns what a code stands for; waiting messages are UNKNOWN.
func (c StateCode) State() (status message.Status, reason message.Reason, waiting bool) {
	s := decoded[c]
	return s.Status, s.Reason, s.Waiting
}
