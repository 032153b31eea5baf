package simulator

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// SendGrid: an address whose local part names a fault, at MagicDomain, meets that fault: refused@simulator.test.
// What follows a plus tells such addresses apart.

// MagicDomain is the domain of email addresses that stand for an outcome.
const MagicDomain = "simulator.test"

func sendGridError(status int, text, field string) func(*fasthttp.RequestCtx) {
	return func(c *fasthttp.RequestCtx) {
		var f any
		if field != "" {
			f = field
		}
		writeJSON(c, status, map[string]any{"errors": []any{map[string]any{"message": text, "field": f, "help": nil}}})
	}
}

var sendGridVendor = vendor{
	name: SendGrid,
	ok: func(c *fasthttp.RequestCtx, id string) {
		c.Response.Header.Set("X-Message-Id", id)
		c.SetStatusCode(fasthttp.StatusAccepted)
	},
	refusals: map[Fault]func(*fasthttp.RequestCtx){
		Throttle:    sendGridError(429, "too many requests", ""),
		Unauthorize: sendGridError(401, "The provided authorization grant is invalid, expired, or revoked", ""),
		Forbid:      sendGridError(403, "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved.", "from"),
		Refuse:      sendGridError(400, "Does not contain a valid address.", "personalizations.0.to.0.email"),
	},
}

type sendGridMail struct {
	From             sendGridAddress `json:"from"`
	Subject          string          `json:"subject"`
	Personalizations []struct {
		To         []sendGridAddress `json:"to"`
		CustomArgs map[string]string `json:"custom_args"`
	} `json:"personalizations"`
	Content []struct {
		Value string `json:"value"`
	} `json:"content"`
}

type sendGridAddress struct {
	Email string `json:"email"`
}

func (s *Simulator) sendGrid(c *fasthttp.RequestCtx) {
	if !strings.HasPrefix(authorization(c), "Bearer SG") {
		sendGridError(401, "The provided authorization grant is invalid, expired, or revoked", "")(c)
		return
	}
	var m sendGridMail
	if err := readJSON(c, &m); err != nil {
		sendGridError(400, "Bad Request", "")(c)
		return
	}
	if len(m.Personalizations) != 1 || len(m.Personalizations[0].To) != 1 {
		sendGridError(400, "The personalizations field is required and must have at least one personalization.", "personalizations")(c)
		return
	}
	if m.From.Email == "" || m.Subject == "" || len(m.Content) == 0 || m.Content[0].Value == "" {
		sendGridError(400, "The subject is required.", "subject")(c)
		return
	}
	to := m.Personalizations[0].To[0].Email
	magic := None
	if local, domain, ok := strings.Cut(to, "@"); ok && domain == MagicDomain {
		local, _, _ = strings.Cut(local, "+")
		magic = Fault(local)
		if _, known := sendGridVendor.refusals[magic]; !known && !generic(magic) {
			magic = None
		}
	}
	s.answer(c, sendGridVendor, Accepted{
		Recipient: to, MessageID: m.Personalizations[0].CustomArgs["herald_message_id"], ProviderMessageID: id("", s.next()),
		Subject: m.Subject, Text: m.Content[0].Value, From: m.From.Email,
	}, magic)
}

func generic(f Fault) bool {
	switch f {
	case Unavailable, ServerError, ErrorAfter, HTML, Empty, Reset, ResetAfter, Hang, HangAfter:
		return true
	}
	return false
}

// Twilio: the vendor's own magic numbers, of the recipient and of the sender.

func twilioError(status, code int, text string) func(*fasthttp.RequestCtx) {
	return func(c *fasthttp.RequestCtx) {
		writeJSON(c, status, map[string]any{
			"code": code, "message": text, "more_info": fmt.Sprintf("https://www.twilio.com/docs/errors/%d", code), "status": status,
		})
	}
}

var (
	twilioVendor = vendor{
		name: Twilio,
		refusals: map[Fault]func(*fasthttp.RequestCtx){
			Throttle:    twilioError(429, 20429, "Too Many Requests"),
			Unauthorize: twilioError(401, 20003, "Authenticate"),
			Forbid:      twilioError(400, 21606, "The From phone number is not a valid, SMS-capable inbound phone number for your account."),
			Refuse:      twilioError(400, 21211, "Invalid 'To' Phone Number"),
		},
	}
	twilioMagicFrom = map[string]func(*fasthttp.RequestCtx){
		"+15005550001": twilioError(400, 21212, "Invalid From Number"),
		"+15005550007": twilioError(400, 21606, "The From phone number is not SMS-capable"),
		"+15005550008": twilioError(429, 21611, "The From number has exceeded the maximum number of queued messages"),
	}
	twilioMagicTo = map[string]func(*fasthttp.RequestCtx){
		"+15005550001": twilioError(400, 21211, "Invalid 'To' Phone Number"),
		"+15005550002": twilioError(400, 21612, "Twilio cannot route to this number"),
		"+15005550003": twilioError(400, 21408, "Permission to send an SMS has not been enabled for the region"),
		"+15005550004": twilioError(400, 21610, "Attempt to send to unsubscribed recipient"),
		"+15005550009": twilioError(400, 21614, "'To' number is not a valid mobile number"),
	}
)

func (s *Simulator) twilio(c *fasthttp.RequestCtx, account string) {
	if !basic(authorization(c)) {
		twilioError(401, 20003, "Authenticate")(c)
		return
	}
	field := func(name string) string { return string(c.PostArgs().Peek(name)) }
	to, from, body, media := field("To"), field("From"), field("Body"), len(c.PostArgs().PeekMulti("MediaUrl"))
	switch {
	case to == "":
		twilioError(400, 21604, "A 'To' phone number is required.")(c)
		return
	case from == "" && field("MessagingServiceSid") == "":
		twilioError(400, 21603, "A 'From' phone number is required.")(c)
		return
	case body == "" && media == 0:
		twilioError(400, 21602, "Message body is required.")(c)
		return
	case twilioMagicFrom[from] != nil:
		twilioMagicFrom[from](c)
		return
	case twilioMagicTo[to] != nil:
		twilioMagicTo[to](c)
		return
	}
	v := twilioVendor
	v.ok = func(c *fasthttp.RequestCtx, sid string) {
		now := time.Now().UTC().Format(time.RFC1123Z)
		writeJSON(c, fasthttp.StatusCreated, map[string]any{
			"sid": sid, "status": "queued", "to": to, "from": from, "body": body, "num_segments": "1", "num_media": strconv.Itoa(media),
			"price": nil, "price_unit": "USD", "error_code": nil, "error_message": nil, "direction": "outbound-api", "api_version": "2010-04-01",
			"account_sid": account, "date_created": now, "date_updated": now, "date_sent": nil, "messaging_service_sid": nil,
			"uri": string(c.Path()), "subresource_uris": map[string]string{},
		})
	}
	prefix := "SM"
	if media > 0 {
		prefix = "MM"
	}
	s.answer(c, v, Accepted{Recipient: to, ProviderMessageID: id(prefix, s.next()), Text: body, From: from}, None)
}

// basic says whether a header holds a name and a password.
func basic(authorization string) bool {
	encoded, is := strings.CutPrefix(authorization, "Basic ")
	both, err := base64.StdEncoding.DecodeString(encoded)
	user, password, _ := strings.Cut(string(both), ":")
	return is && err == nil && user != "" && password != ""
}

// Meta: ids that begin with 99900 and end in a code meet it.

func metaError(status, code, subcode int, text string) func(*fasthttp.RequestCtx) {
	return func(c *fasthttp.RequestCtx) {
		e := map[string]any{"message": text, "type": "OAuthException", "code": code, "fbtrace_id": "simulated"}
		if subcode != 0 {
			e["error_subcode"] = subcode
		}
		writeJSON(c, status, map[string]any{"error": e})
	}
}

var (
	metaVendor = vendor{
		name: Instagram,
		refusals: map[Fault]func(*fasthttp.RequestCtx){
			Throttle:    metaError(400, 613, 0, "Calls to this api have exceeded the rate limit."),
			Unauthorize: metaError(401, 190, 463, "Error validating access token: Session has expired"),
			Forbid:      metaError(400, 10, 1893063, "Account temporarily restricted from sending"),
			Refuse:      metaError(400, 100, 2534014, "The requested user cannot be found."),
		},
	}
	metaMagicTo = map[string]func(*fasthttp.RequestCtx){
		"999000000000010": metaError(400, 10, 2534022, "This message is sent outside of allowed window."),
		"999000000000100": metaError(400, 100, 2534014, "The requested user cannot be found."),
		"999000000000551": metaError(400, 551, 1545041, "This person isn't available right now."),
		"999000000000190": metaError(401, 190, 0, "Invalid OAuth access token."),
		"999000000001001": metaError(400, 1, 1357046, "Received Invalid JSON reply"),
	}
)

func (s *Simulator) instagram(c *fasthttp.RequestCtx, account string) {
	if !strings.HasPrefix(authorization(c), "Bearer ") {
		metaError(401, 190, 0, "Invalid OAuth access token.")(c)
		return
	}
	var doc struct {
		Recipient struct {
			ID string `json:"id"`
		} `json:"recipient"`
		Message struct {
			Text       string `json:"text"`
			Attachment *struct {
				Payload struct {
					URL string `json:"url"`
				} `json:"payload"`
			} `json:"attachment"`
		} `json:"message"`
	}
	if err := readJSON(c, &doc); err != nil || doc.Recipient.ID == "" {
		metaError(400, 100, 0, "Invalid parameter")(c)
		return
	}
	part, text := "text", doc.Message.Text
	if doc.Message.Attachment != nil {
		part, text = "image", doc.Message.Attachment.Payload.URL
	}
	if text == "" || len(doc.Message.Text) > 1000 {
		metaError(400, 100, 0, "Invalid parameter")(c)
		return
	}
	if magic := metaMagicTo[doc.Recipient.ID]; magic != nil {
		magic(c)
		return
	}
	v := metaVendor
	v.ok = func(c *fasthttp.RequestCtx, mid string) {
		writeJSON(c, fasthttp.StatusOK, map[string]string{"recipient_id": doc.Recipient.ID, "message_id": mid})
	}
	s.answer(c, v, Accepted{
		Recipient: doc.Recipient.ID, Part: part, ProviderMessageID: id("aWdfZAG1", s.next()), Text: text, From: account,
	}, None)
}
