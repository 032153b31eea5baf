package simulator

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// Twilio is the name of Twilio's provider.
const Twilio = "twilio"

var twilio = vendor{
	name: Twilio,
	path: []string{"2010-04-01", "Accounts", "*", "Messages.json"},
	read: readTwilio,
	refusals: map[Fault]answer{
		Throttle:    twilioError(429, 20429, "Too Many Requests"),
		Unauthorize: twilioError(401, 20003, "Authenticate"),
		Forbid:      twilioError(400, 21606, "The From phone number is not a valid, SMS-capable inbound phone number for your account."),
		Refuse:      twilioError(400, 21211, "Invalid 'To' Phone Number"),
	},
	quote:  func(text string) answer { return twilioError(400, 21211, text) },
	refuse: func(r Refusal) answer { return twilioError(r.status(), r.Code, r.Text) },
}

// Twilio's own magic numbers: https://www.twilio.com/docs/iam/test-credentials
var (
	twilioMagicFrom = map[string]answer{
		"+15005550001": twilioError(400, 21212, "Invalid From Number"),
		"+15005550007": twilioError(400, 21606, "The From phone number is not SMS-capable"),
		"+15005550008": twilioError(429, 21611, "The From number has exceeded the maximum number of queued messages"),
	}
	twilioMagicTo = map[string]answer{
		"+15005550001": twilioError(400, 21211, "Invalid 'To' Phone Number"),
		"+15005550002": twilioError(400, 21612, "Twilio cannot route to this number"),
		"+15005550003": twilioError(400, 21408, "Permission to send an SMS has not been enabled for the region"),
		"+15005550004": twilioError(400, 21610, "Attempt to send to unsubscribed recipient"),
		"+15005550009": twilioError(400, 21614, "'To' number is not a valid mobile number"),
	}
)

func twilioError(status, code int, text string) answer {
	return func(c *fasthttp.RequestCtx) {
		writeJSON(c, status, map[string]any{
			"code": code, "message": text, "more_info": fmt.Sprintf("https://www.twilio.com/docs/errors/%d", code), "status": status,
		})
	}
}

func readTwilio(c *fasthttp.RequestCtx, path []string) (sent, answer) {
	if !isBasic(authorization(c)) {
		return sent{}, twilioError(401, 20003, "Authenticate")
	}
	field := func(name string) string { return string(c.PostArgs().Peek(name)) }
	to, from, body, media := field("To"), field("From"), field("Body"), len(c.PostArgs().PeekMulti("MediaUrl"))
	switch {
	case to == "":
		return sent{}, twilioError(400, 21604, "A 'To' phone number is required.")
	case from == "" && field("MessagingServiceSid") == "":
		return sent{}, twilioError(400, 21603, "A 'From' phone number is required.")
	case body == "" && media == 0:
		return sent{}, twilioError(400, 21602, "Message body is required.")
	case twilioMagicFrom[from] != nil:
		return sent{}, twilioMagicFrom[from]
	case twilioMagicTo[to] != nil:
		return sent{}, twilioMagicTo[to]
	}
	prefix := "SM"
	if media > 0 {
		prefix = "MM"
	}
	account := path[2]
	return sent{
		Accepted: Accepted{Recipient: to, Text: body, From: from},
		idPrefix: prefix,
		ok: func(c *fasthttp.RequestCtx, sid string) {
			now := time.Now().UTC().Format(time.RFC1123Z)
			writeJSON(c, fasthttp.StatusCreated, map[string]any{
				"sid": sid, "status": "queued", "to": to, "from": from, "body": body, "num_segments": "1", "num_media": strconv.Itoa(media),
				"price": nil, "price_unit": "USD", "error_code": nil, "error_message": nil, "direction": "outbound-api", "api_version": "2010-04-01",
				"account_sid": account, "date_created": now, "date_updated": now, "date_sent": nil, "messaging_service_sid": nil,
				"uri": string(c.Path()), "subresource_uris": map[string]string{},
			})
		},
	}, nil
}

// isBasic reports whether an Authorization header has a user and a password (RFC 7617).
func isBasic(authorization string) bool {
	encoded, is := strings.CutPrefix(authorization, "Basic ")
	both, err := base64.StdEncoding.DecodeString(encoded)
	user, password, _ := strings.Cut(string(both), ":")
	return is && err == nil && user != "" && password != ""
}
