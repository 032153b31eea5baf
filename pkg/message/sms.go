package message

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// SMS is the channel type of text messages to phones, with and without media.
const SMS ChannelType = "SMS"

// Limits of SMS.
const (
	MaxSMS       = 1600 // characters: Twilio refuses more (error 21617)
	MaxMediaURLs = 10
)

var (
	e164Form      = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	smsSenderForm = regexp.MustCompile(`^(\+[1-9][0-9]{1,14}|[0-9]{3,8}|MG[0-9a-fA-F]{32}|[A-Za-z0-9 &_+-]{1,11})$`)
)

var smsSpec = TypeSpec{
	Type:  SMS,
	Label: "SMS",
	Address: AddressRule{
		LeadField: "phone",
		Form:      "an E.164 number: + and 7 to 15 digits",
		Normalize: NormalizePhone,
		Phone:     true,
		Recognize: func(s string) bool {
			_, ok := NormalizePhone(s)
			return ok
		},
		Shown: "+ and digits",
	},
	Sender: SenderRule{
		Form:  "an E.164 number, a short code, an alphanumeric id or a messaging service (MG…)",
		Valid: IsSMSSender,
	},
	Content: ContentRule{
		Fields:        []string{"sender", "media_urls"},
		Implies:       []string{"media_urls"},
		Validate:      validateSMS,
		CheckRendered: checkRenderedSMS,
		Segments:      Segments,
		Rules:         fmt.Sprintf("An SMS requires content, of at most %d characters.", MaxSMS),
	},
	Price:       PriceRule{Unit: "an SMS segment", Cost: smsCost},
	Concurrency: 400,
}

func validateSMS(c *Content) []FieldError {
	v := &validator{}
	switch {
	case c.Text == "":
		v.add(SlugMissing, "an SMS needs content", "content")
	case utf8.RuneCountInString(c.Text) > MaxSMS:
		v.add(SlugTooLong, fmt.Sprintf("an SMS has at most %d characters", MaxSMS), "content")
	}
	if len(c.MediaURLs) > MaxMediaURLs {
		v.add(SlugListLong, fmt.Sprintf("at most %d media_urls", MaxMediaURLs), "media_urls")
	}
	for i, u := range c.MediaURLs {
		if !IsTemplate(u) && !validURL(u, "http", "https") {
			v.add(SlugValue, "not an http or https URL", "media_urls", i)
		}
	}
	return v.errs
}

func checkRenderedSMS(c *Content) error {
	if blank(c.Text) {
		return errBlank
	}
	if utf8.RuneCountInString(c.Text) > MaxSMS {
		return fmt.Errorf("the content has over %d characters once rendered", MaxSMS)
	}
	for _, u := range c.MediaURLs {
		if !validURL(u, "http", "https") {
			return errors.New("a media URL is not an http or https URL once rendered")
		}
	}
	return nil
}

// smsCost charges each segment, or a message with media as a whole if the channel has a price for it.
func smsCost(u Usage) Micros {
	if u.Media && u.PriceMedia != nil {
		return *u.PriceMedia
	}
	return u.Price * Micros(max(u.Segments, 1))
}

// IsE164 reports whether s has the form of an E.164 number: a plus and 7 to 15 digits, the first not 0. Only the provider knows whether
// the number is assigned.
func IsE164(s string) bool { return e164Form.MatchString(s) }

// IsSMSSender reports whether s can be the sender of an SMS: an E.164 number, a short code, an alphanumeric id of up to 11
// characters, or the id of a messaging service.
func IsSMSSender(s string) bool { return smsSenderForm.MatchString(s) && strings.TrimSpace(s) == s }
