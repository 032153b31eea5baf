package simulator

import (
	"strings"

	"github.com/valyala/fasthttp"
)

// Instagram is the name of Instagram's provider.
const Instagram = "instagram"

const maxInstagramText = 1000 // bytes

var instagram = vendor{
	name: Instagram,
	path: []string{"*", "*", "messages"},
	read: readInstagram,
	refusals: map[Fault]answer{
		Throttle:    metaError(400, 613, 0, "Calls to this api have exceeded the rate limit."),
		Unauthorize: metaError(401, 190, 463, "Error validating access token: Session has expired"),
		Forbid:      metaError(400, 10, 1893063, "Account temporarily restricted from sending"),
		Refuse:      metaError(400, 100, 2534014, "The requested user cannot be found."),
	},
	quote:  func(text string) answer { return metaError(400, 100, 0, text) },
	refuse: func(r Refusal) answer { return metaError(r.status(), r.Code, r.Subcode, r.Text) },
}

// metaMagicTo has the ids that stand for an outcome: 99900, zeros and an error code.
var metaMagicTo = map[string]answer{
	"999000000000010": metaError(400, 10, 2534022, "This message is sent outside of allowed window."),
	"999000000000100": metaError(400, 100, 2534014, "The requested user cannot be found."),
	"999000000000551": metaError(400, 551, 1545041, "This person isn't available right now."),
	"999000000000190": metaError(401, 190, 0, "Invalid OAuth access token."),
	"999000000001001": metaError(400, 1, 1357046, "Received Invalid JSON reply"),
}

func metaError(status, code, subcode int, text string) answer {
	return func(c *fasthttp.RequestCtx) {
		e := map[string]any{"message": text, "type": "OAuthException", "code": code, "fbtrace_id": "simulated"}
		if subcode != 0 {
			e["error_subcode"] = subcode
		}
		writeJSON(c, status, map[string]any{"error": e})
	}
}

type instagramMessage struct {
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

func readInstagram(c *fasthttp.RequestCtx, path []string) (sent, answer) {
	if !strings.HasPrefix(authorization(c), "Bearer ") {
		return sent{}, metaError(401, 190, 0, "Invalid OAuth access token.")
	}
	var m instagramMessage
	if err := readJSON(c, &m); err != nil || m.Recipient.ID == "" {
		return sent{}, metaError(400, 100, 0, "Invalid parameter")
	}
	part, text := "text", m.Message.Text
	if m.Message.Attachment != nil {
		part, text = "image", m.Message.Attachment.Payload.URL
	}
	if text == "" || len(m.Message.Text) > maxInstagramText {
		return sent{}, metaError(400, 100, 0, "Invalid parameter")
	}
	if magic := metaMagicTo[m.Recipient.ID]; magic != nil {
		return sent{}, magic
	}
	return sent{
		Accepted: Accepted{Recipient: m.Recipient.ID, Part: part, Text: text, From: path[1]},
		idPrefix: "aWdfZAG1",
		ok: func(c *fasthttp.RequestCtx, id string) {
			writeJSON(c, fasthttp.StatusOK, map[string]string{"recipient_id": m.Recipient.ID, "message_id": id})
		},
	}, nil
}
