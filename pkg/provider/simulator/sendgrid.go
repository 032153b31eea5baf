package simulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/mail"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/valyala/fasthttp"
)

// SendGrid is the name of SendGrid's provider.
const SendGrid = "sendgrid"

// MagicDomain is the domain of email addresses that stand for an outcome. The local part up to a plus names a fault, as in
// refused+1@simulator.test.
const MagicDomain = "simulator.test"

var sendGrid = vendor{
	name: SendGrid,
	path: []string{"v3", "mail", "send"},
	read: readSendGrid,
	refusals: map[Fault]answer{
		Throttle:    sendGridError(429, "too many requests", ""),
		Unauthorize: sendGridUnauthorized,
		Forbid:      sendGridError(403, "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved.", "from"),
		Refuse:      sendGridError(400, "Does not contain a valid address.", "personalizations.0.to.0.email"),
	},
	quote:  func(text string) answer { return sendGridError(400, text, "personalizations.0.to.0.email") },
	refuse: func(r Refusal) answer { return sendGridError(r.status(), r.Text, r.Field) },
}

var sendGridUnauthorized = sendGridError(401, "The provided authorization grant is invalid, expired, or revoked", "")

func sendGridError(status int, text, field string) answer {
	return func(c *fasthttp.RequestCtx) {
		var f any
		if field != "" {
			f = field
		}
		writeJSON(c, status, map[string]any{"errors": []any{map[string]any{"message": text, "field": f, "help": nil}}})
	}
}

type sendGridMail struct {
	From             sendGridAddress   `json:"from"`
	ReplyTo          *sendGridAddress  `json:"reply_to"`
	Headers          map[string]string `json:"headers"`
	Subject          string            `json:"subject"`
	Personalizations []struct {
		To         []sendGridAddress `json:"to"`
		CustomArgs map[string]string `json:"custom_args"`
	} `json:"personalizations"`
	Content []struct {
		Value string `json:"value"`
	} `json:"content"`
	Attachments []struct {
		Content     fileContent `json:"content"`
		Filename    string      `json:"filename"`
		Type        string      `json:"type"`
		Disposition string      `json:"disposition"`
	} `json:"attachments"`
}

type sendGridAddress struct {
	Email string `json:"email"`
	Name  string `json:"name"`
}

// text returns the address as mail headers have it.
func (a *sendGridAddress) text() string {
	if a == nil || a.Name == "" {
		return a.email()
	}
	return (&mail.Address{Name: a.Name, Address: a.Email}).String()
}

func (a *sendGridAddress) email() string {
	if a == nil {
		return ""
	}
	return a.Email
}

// fileContent is the content of an attachment: its size and its SHA-256 in hexadecimal. It is hashed from the request's buffer, since
// copies of large files would make the simulator the largest program of a test.
type fileContent struct {
	size  int64
	sum   string
	valid bool // the content is base64
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (f *fileContent) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil || v.Kind() != '"' {
		return errors.Join(err, errNoText)
	}
	h := sha256.New()
	f.size, err = io.Copy(h, base64.NewDecoder(base64.StdEncoding, bytes.NewReader(v[1:len(v)-1]))) // an escape is not base64
	f.sum, f.valid = hex.EncodeToString(h.Sum(nil)), err == nil
	return nil
}

var errNoText = errors.New("no text")

// refuseFiles returns SendGrid's refusal of an invalid attachment, nil if all are valid.
func (m *sendGridMail) refuseFiles() answer {
	for i := range m.Attachments {
		a := &m.Attachments[i]
		field := "attachments." + strconv.Itoa(i)
		switch {
		case !a.Content.valid:
			return sendGridError(400, "The attachment content must be base64 encoded.", field+".content")
		case a.Content.size == 0:
			return sendGridError(400, "The attachment content is required.", field+".content")
		case a.Filename == "":
			return sendGridError(400, "The attachment filename is required.", field+".filename")
		case strings.ContainsAny(a.Type, ";\r\n"):
			return sendGridError(400, "The attachment type cannot contain ';', or CRLF characters.", field+".type")
		case a.Disposition != "" && a.Disposition != "attachment" && a.Disposition != "inline":
			return sendGridError(400, "The disposition of your attachment can be either 'inline' or 'attachment'.", field+".disposition")
		}
	}
	return nil
}

// files returns the attachments as the record has them.
func (m *sendGridMail) files() []File {
	var files []File //nolint:prealloc // nil without attachments
	for _, a := range m.Attachments {
		files = append(files, File{Name: a.Filename, Type: a.Type, Size: a.Content.size, SHA256: a.Content.sum})
	}
	return files
}

// reservedHeaders are the names, in lower case, of the headers that a request may not set.
var reservedHeaders = map[string]bool{
	"x-sg-id": true, "x-sg-eid": true, "received": true, "dkim-signature": true, "content-type": true, "content-transfer-encoding": true, "to": true,
	"from": true, "subject": true, "reply-to": true, "cc": true, "bcc": true,
}

// refuseExtras returns SendGrid's refusal of an invalid reply_to, header or attachment, nil if all are valid.
func (m *sendGridMail) refuseExtras() answer {
	if m.ReplyTo != nil && !strings.Contains(m.ReplyTo.Email, "@") {
		return sendGridError(400, "The reply_to email does not contain a valid address.", "reply_to.email")
	}
	for name, value := range m.Headers {
		switch {
		case reservedHeaders[strings.ToLower(name)]:
			return sendGridError(400, "You cannot specify a reserved header.", "headers")
		case strings.ContainsFunc(name+value, func(r rune) bool { return r < ' ' || r > '~' }):
			return sendGridError(400, "A header must be encoded if it contains Unicode characters.", "headers")
		}
	}
	return m.refuseFiles()
}

func readSendGrid(c *fasthttp.RequestCtx, _ []string) (sent, answer) {
	if !strings.HasPrefix(authorization(c), "Bearer SG") {
		return sent{}, sendGridUnauthorized
	}
	var m sendGridMail
	if err := readJSON(c, &m); err != nil {
		return sent{}, sendGridError(400, "Bad Request", "")
	}
	if len(m.Personalizations) != 1 || len(m.Personalizations[0].To) != 1 {
		return sent{}, sendGridError(400, "The personalizations field is required and must have at least one personalization.", "personalizations")
	}
	if m.From.Email == "" || m.Subject == "" || len(m.Content) == 0 || m.Content[0].Value == "" {
		return sent{}, sendGridError(400, "The subject is required.", "subject")
	}
	if refusal := m.refuseExtras(); refusal != nil {
		return sent{}, refusal
	}
	to := m.Personalizations[0].To[0].Email
	return sent{
		Accepted: Accepted{
			Recipient: to, MessageID: m.Personalizations[0].CustomArgs["herald_message_id"], Subject: m.Subject, Text: m.Content[0].Value, From: m.From.Email,
			ReplyTo: m.ReplyTo.text(), Headers: m.Headers, Attachments: m.files(),
		},
		fault: magicFault(to),
		ok: func(c *fasthttp.RequestCtx, id string) {
			c.Response.Header.Set("X-Message-Id", id)
			c.SetStatusCode(fasthttp.StatusAccepted)
		},
	}, nil
}

// magicFault returns the fault for which an address at MagicDomain stands.
func magicFault(to string) Fault {
	local, domain, _ := strings.Cut(to, "@")
	name, _, _ := strings.Cut(local, "+")
	if fault := Fault(name); domain == MagicDomain && sendGridFaults[fault] {
		return fault
	}
	return None
}

// sendGridFaults are the faults that an address can name: all except Quote, whose text contains the address.
var sendGridFaults = map[Fault]bool{
	Throttle: true, Unauthorize: true, Forbid: true, Refuse: true, Unavailable: true, ServerError: true, ErrorAfter: true, HTML: true, Empty: true, Reset: true,
	ResetAfter: true, Hang: true, HangAfter: true,
}
