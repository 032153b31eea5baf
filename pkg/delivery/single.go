package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/render"
)

// SendRequest is a request to send one message now.
type SendRequest struct {
	Channel     *channel.Channel
	Recipient   string // empty: the lead's address
	Content     message.Content
	Files       []message.FileData // of Content.Attachments
	LeadID      uuid.UUID          // uuid.Nil: no contact was named
	Metadata    json.RawMessage
	MessageType message.MessageType
	Priority    message.Priority
	Key         *access.IdempotencyKey // nil: a repeated request is another message
}

// SendResult is the answer to a SendRequest.
type SendResult struct {
	Message *message.Message
	Result
	Provider time.Duration // how long the provider took to answer, 0 when it was not called
}

// Leads finds the lead that a single names as its contact. It returns a message.Error not_found when the lead does not exist.
type Leads interface {
	Lead(ctx context.Context, id uuid.UUID) (*message.Lead, error)
}

// MessageStore reads one message with all fields. It returns a message.Error not_found when the message does not exist.
type MessageStore interface {
	Message(ctx context.Context, id uuid.UUID) (*message.Message, []message.Attempt, error)
}

// SenderDeps are what a Sender works with.
type SenderDeps struct {
	Deliverer *Deliverer
	Inserter  Inserter
	Leads     Leads
	Messages  MessageStore
}

// Sender sends single messages within their request. It is safe for concurrent use.
type Sender struct{ deps SenderDeps }

// NewSender makes a Sender.
func NewSender(d SenderDeps) *Sender { return &Sender{deps: d} }

// Send writes the message's row, delivers it, and answers with the result. Once the row is written the caller gets an answer
// that tells its state, even when a part of Herald fails on the way. Errors are message.Errors: invalid with paths below
// message_data, channel_paused, unavailable; or access.ErrKeyTaken. With an error nothing was sent.
func (s *Sender) Send(ctx context.Context, req SendRequest) (*SendResult, error) {
	start := time.Now()
	if d := Decide(req.Channel); d.Held {
		return nil, message.Errorf(message.CodePaused, "the channel is paused: %s", d.Why)
	}
	sent, err := s.sendOnce(ctx, req, start)
	if errors.Is(err, ErrLeadErased) { // the message that was made from the lead is dropped, and made again without it
		sent, err = s.sendOnce(ctx, req, start)
	}
	return sent, err
}

func (s *Sender) sendOnce(ctx context.Context, req SendRequest, start time.Time) (*SendResult, error) {
	lead, err := s.contact(ctx, req.LeadID)
	if err != nil {
		return nil, err
	}
	tpl, recipient, errs := prepare(ctx, req, lead)
	if len(errs) > 0 {
		return nil, message.Invalid(errs)
	}
	entry := s.newEntry(req, recipient, lead != nil)
	m := entry.Message
	asked := time.Now()
	inserted, err := s.deps.Inserter.Insert(ctx, entry)
	if err != nil {
		return nil, err
	}
	w := &work{Message: m, lead: lead, template: tpl, suppressed: inserted.Suppressed, channel: inserted.ChannelVersion, inline: true, files: req.Files}
	if inserted.Claimed {
		w.token, w.claimed, w.event.Claim = entry.Claim.Token, asked, time.Since(asked)
		m.Attempt++
	}
	// The row is durable now: the delivery is completed even when the caller goes away.
	res, err := s.deps.Deliverer.deliver(context.WithoutCancel(ctx), w, start)
	if err != nil {
		// The sweep brings the row to its end. What is known now is that the row exists, and whether a call was made.
		res = Result{Status: message.Queued}
		if w.called {
			res = Result{Status: message.Unknown, Reason: message.UnknownOutcome}
		}
	}
	return &SendResult{m, res, w.event.Send}, nil
}

// newEntry is the row of a request. It is written with its claim where nothing delays the call, which saves a round trip;
// elsewhere it would be claimed while it waits, and a crash would leave it UNKNOWN instead of QUEUED.
func (s *Sender) newEntry(req SendRequest, recipient string, fromLead bool) Entry {
	timing := s.deps.Deliverer.deps.Timing
	now := time.Now().UTC().Truncate(time.Microsecond)
	watch := now.Add(timing.Claim + timing.Watch)
	m := &message.Message{
		ID: uuid.Must(uuid.NewV7()), LeadID: req.LeadID, ChannelID: req.Channel.ID, ChannelType: req.Channel.Type,
		Provider: req.Channel.Provider, Recipient: recipient, MessageType: req.MessageType, Priority: req.Priority,
		Content: &req.Content, Metadata: req.Metadata, Keyed: req.Key != nil, Status: message.Queued, CreatedAt: now, UpdatedAt: now,
		NextAttemptAt: &watch,
	}
	entry := Entry{Message: m, Files: req.Files, Key: req.Key, ForLead: fromLead}
	if Decide(req.Channel).Immediate {
		entry.Claim = s.deps.Deliverer.newClaim(m.ID)
	}
	return entry
}

// replayAfter is when a caller may ask again for a single that is being worked on.
const replayAfter = time.Second

// Replay answers for a single that was sent before, from its row as it stands. While the first request is at work, the error
// is a message.Error in_progress; its work is over when the claim has expired.
func (s *Sender) Replay(ctx context.Context, id uuid.UUID) (*SendResult, error) {
	loaded, err := s.deps.Deliverer.deps.Ledger.Load(ctx, id)
	if err != nil {
		return nil, err
	}
	m := loaded.Message
	switch {
	case m.Status == message.Sending && loaded.ClaimExpired:
		if err := s.deps.Deliverer.Rescue(ctx, id); err != nil {
			return nil, err
		}
	case m.Status == message.Sending, s.unclaimed(m):
		return nil, &message.Error{Code: message.CodeInProgress, Message: "the request with this key is still in progress; ask again in a moment", RetryAfter: replayAfter}
	}
	if m, _, err = s.deps.Messages.Message(ctx, id); err != nil {
		return nil, err
	}
	return &SendResult{Message: m, Result: resultOf(m)}, nil
}

// unclaimed says whether a single was written so recently that its request may be about to claim it.
func (s *Sender) unclaimed(m *message.Message) bool {
	return m.Status == message.Queued && m.UpdatedAt.Equal(m.CreatedAt) && time.Since(m.CreatedAt) < s.deps.Deliverer.deps.Timing.Claim
}

// contact returns the lead that a request names, nil when it names none or the lead does not exist.
func (s *Sender) contact(ctx context.Context, id uuid.UUID) (*message.Lead, error) {
	if id == uuid.Nil {
		return nil, nil //nolint:nilnil // no contact is a normal case, which callers see as a nil lead
	}
	lead, err := s.deps.Leads.Lead(ctx, id)
	if message.IsCode(err, message.CodeNotFound) {
		return nil, nil //nolint:nilnil // the contact is optional: one that was deleted does not stop the message
	}
	return lead, err
}

// prepare checks what depends on the channel and the lead: the recipient, the sender, and that the templates render. It
// returns the parsed templates, the normalised recipient and every mistake that it found.
func prepare(ctx context.Context, req SendRequest, lead *message.Lead) (*render.Template, string, []message.FieldError) {
	t := req.Channel.Type
	errs := message.ValidateContent(t, &req.Content)
	recipient := req.Recipient
	if recipient == "" && lead != nil {
		recipient = lead.Address(t)
	}
	recipient, mistake := Recipient(req.Channel, recipient)
	if mistake != nil {
		errs = append(errs, *mistake)
	}
	errs = append(errs, CheckSender(req.Channel, &req.Content)...)
	tpl, terrs := render.Compile(ctx, t, req.Content)
	if errs = append(errs, terrs...); len(errs) == 0 {
		errs = append(errs, tpl.Check(ctx, lead)...)
	}
	return tpl, recipient, errs
}

// Recipient returns the normalised address of a recipient of a single, or the mistake in it.
func Recipient(ch *channel.Channel, recipient string) (string, *message.FieldError) {
	if recipient == "" {
		return "", &message.FieldError{Loc: []any{"recipient"}, Msg: "a recipient is required, or a contact_id whose lead has an address", Type: message.SlugMissing}
	}
	rule := ch.Type.Spec().Address
	address, ok := rule.Normalize(recipient)
	if !ok && rule.Phone {
		address, ok = message.NationalPhone(recipient, ch.Region)
	}
	if !ok {
		return "", &message.FieldError{Loc: []any{"recipient"}, Msg: "must be " + rule.Form, Type: message.SlugValue}
	}
	return address, nil
}

// CheckSender returns an error for a sender that the message names for itself and its channel does not allow.
func CheckSender(ch *channel.Channel, c *message.Content) []message.FieldError {
	if c.Sender == "" || ch.Allows(c.Sender) {
		return nil
	}
	return []message.FieldError{{Loc: []any{"sender"}, Msg: fmt.Sprintf("the channel %s does not allow this sender", ch.Name), Type: message.SlugValue}}
}
