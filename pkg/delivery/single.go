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
	LeadID      uuid.UUID // uuid.Nil: no contact was named
	Metadata    json.RawMessage
	MessageType message.MessageType
	Priority    message.Priority
	Key         *access.IdempotencyKey // nil: sent again, it is another message
}

// Leads finds the lead that a single names as its contact; not_found when there is none.
type Leads interface {
	Lead(ctx context.Context, id uuid.UUID) (*message.Lead, error)
}

// SendResult is the answer to a Single.
type SendResult struct {
	Message *message.Message
	Result
	Provider time.Duration // how long the provider took to answer, 0 where none was asked
}

// Sender sends single messages inline.
type Sender struct {
	*Deliverer
	Inserter Inserter
	Leads    Leads
	Records  MessageStore
}

// MessageStore reads one message whole; not_found when there is none.
type MessageStore interface {
	Message(ctx context.Context, id uuid.UUID) (*message.Message, []message.Attempt, error)
}

// Send writes the message's row, delivers it, and answers with what became of it. Once the row is written the caller
// gets an answer that tells its state, even when a part of Herald fails on the way. Errors are message.Errors: invalid
// with paths below message_data, channel_paused, unavailable; or access.ErrKeyTaken, and nothing is done.
func (s *Sender) Send(ctx context.Context, req SendRequest) (*SendResult, error) {
	start := time.Now()
	if req.Channel.State == channel.Paused {
		return nil, message.Errorf(message.CodePaused, "the channel is paused: %s", req.Channel.StateReason)
	}
	sent, err := s.sendOnce(ctx, req, start)
	if errors.Is(err, ErrLeadErased) { // what was made from the lead is dropped, and made again without it
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
	now := time.Now().UTC().Truncate(time.Microsecond)
	watch := now.Add(s.Timing.Claim + s.Timing.Watch)
	m := &message.Message{
		ID: uuid.Must(uuid.NewV7()), LeadID: req.LeadID, ChannelID: req.Channel.ID, ChannelType: req.Channel.Type,
		Provider: req.Channel.Provider, Recipient: recipient, MessageType: req.MessageType, Priority: req.Priority,
		Content: &req.Content, Metadata: req.Metadata, Keyed: req.Key != nil, Status: message.Queued, CreatedAt: now, UpdatedAt: now,
		NextAttemptAt: &watch,
	}
	single := Entry{Message: m, Key: req.Key, ForLead: lead != nil}
	if req.Channel.State == channel.Active && req.Channel.RatePerSecond == 0 { // it waits for nothing
		single.Claim = s.newClaim(m.ID)
	}
	asked := time.Now()
	inserted, err := s.Inserter.Insert(ctx, single)
	if err != nil {
		return nil, err
	}
	w := &work{Message: m, lead: lead, template: tpl, suppressed: inserted.Suppressed, channel: inserted.ChannelVersion, inline: true}
	if inserted.Claimed {
		w.token, w.claimed, w.event.Claim = single.Claim.Token, asked, time.Since(asked)
		m.Attempt++
	}
	// The row is durable now: whatever happens to the caller, the delivery is carried through.
	res, err := s.deliver(context.WithoutCancel(ctx), w, start)
	if err != nil {
		// The sweep brings the row to its end. What is known now is that it is on record, and whether a call was made.
		res = Result{Status: message.Queued}
		if w.called {
			res = Result{Status: message.Unknown, Reason: message.OutcomeUnknown}
		}
	}
	return &SendResult{m, res, w.event.Send}, nil
}

// comeBack is when to ask again for a single that is being worked on.
const comeBack = time.Second

// Replay answers for a single that was sent before, from its row as it stands. While it is being worked on, the error is a
// message.Error in_progress; it is over when the claim on it has expired.
func (s *Sender) Replay(ctx context.Context, id uuid.UUID) (*SendResult, error) {
	loaded, err := s.Ledger.Load(ctx, id)
	if err != nil {
		return nil, err
	}
	m := loaded.Message
	switch {
	case m.Status == message.Sending && loaded.ClaimExpired:
		if err := s.Rescue(ctx, id); err != nil {
			return nil, err
		}
	case m.Status == message.Sending, s.untouched(m):
		return nil, &message.Error{Code: message.CodeInProgress, Message: "this request is being worked on; ask again in a moment", RetryAfter: comeBack}
	}
	if m, _, err = s.Records.Message(ctx, id); err != nil {
		return nil, err
	}
	return &SendResult{Message: m, Result: resultOf(m)}, nil
}

// untouched says whether a single is written and its sender, if it lives, is on the way to the claim.
func (s *Sender) untouched(m *message.Message) bool {
	return m.Status == message.Queued && m.UpdatedAt.Equal(m.CreatedAt) && time.Since(m.CreatedAt) < s.Timing.Claim
}

func (s *Sender) contact(ctx context.Context, id uuid.UUID) (*message.Lead, error) {
	if id == uuid.Nil {
		return nil, nil //nolint:nilnil // no contact is a normal case, and a nil lead is how every caller sees it
	}
	lead, err := s.Leads.Lead(ctx, id)
	if message.IsCode(err, message.CodeNotFound) {
		return nil, nil //nolint:nilnil // the contact need not exist
	}
	return lead, err
}

// prepare checks what only the channel and the lead can tell: the recipient, the sender, and that the templates
// render.
func prepare(ctx context.Context, req SendRequest, lead *message.Lead) (*render.Template, string, []message.FieldError) {
	t := req.Channel.Type
	errs := message.ValidateContent(t, &req.Content)
	fail := func(slug, msg string, loc ...any) {
		errs = append(errs, message.FieldError{Loc: loc, Msg: msg, Type: slug})
	}
	recipient := req.Recipient
	if recipient == "" && lead != nil {
		recipient = lead.Address(t)
	}
	switch address, ok := message.ValidRecipient(t, recipient); {
	case recipient == "":
		fail(message.SlugMissing, "a recipient is required, or a contact_id whose lead has an address", "recipient")
	case !ok:
		fail(message.SlugValue, recipientHint(t), "recipient")
	default:
		recipient = address
	}
	errs = append(errs, CheckSender(req.Channel, &req.Content)...)
	tpl, terrs := render.Compile(ctx, t, req.Content)
	if errs = append(errs, terrs...); len(errs) == 0 {
		errs = append(errs, tpl.Check(ctx, lead)...)
	}
	return tpl, recipient, errs
}

// CheckSender refuses a sender of the message's own that its channel does not allow.
func CheckSender(ch *channel.Channel, c *message.Content) []message.FieldError {
	if c.Sender == "" || ch.Allows(c.Sender) {
		return nil
	}
	return []message.FieldError{{Loc: []any{"sender"}, Msg: fmt.Sprintf("the channel %s does not allow this sender", ch.Name), Type: message.SlugValue}}
}

func recipientHint(t message.ChannelType) string {
	switch t {
	case message.Email:
		return "must be an email address"
	case message.SMS:
		return "must be an E.164 number: + and 7 to 15 digits"
	default:
		return "must be an Instagram-scoped id: digits"
	}
}
