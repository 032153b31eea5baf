package message

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// InstagramDM is the channel type of Instagram direct messages.
const InstagramDM ChannelType = "INSTAGRAM_DM"

// MaxInstagramBytes is Meta's limit for a text, in bytes of UTF-8.
const MaxInstagramBytes = 1000

// Instagram-scoped ids have 15 to 17 digits today. Shorter and longer ids are accepted if the request names the type. They are too
// ambiguous to identify it.
const minShownDigits, maxShownDigits = 15, 17

var instagramForm = regexp.MustCompile(`^[0-9]{1,32}$`)

var instagramDMSpec = TypeSpec{
	Type:  InstagramDM,
	Label: "Instagram DM",
	Address: AddressRule{
		LeadField: "instagram_id",
		Form:      "an Instagram-scoped id: digits",
		Normalize: func(s string) (string, bool) {
			s = strings.TrimSpace(s)
			return s, IsInstagramID(s)
		},
		Recognize: func(s string) bool {
			return IsInstagramID(s) && len(s) >= minShownDigits && len(s) <= maxShownDigits
		},
		Shown: fmt.Sprintf("%d to %d digits", minShownDigits, maxShownDigits),
	},
	Sender: SenderRule{Form: "the Instagram account's id", Valid: IsInstagramID},
	Content: ContentRule{
		Fields:        []string{"image_url"},
		Implies:       []string{"image_url"},
		Validate:      validateInstagram,
		CheckRendered: checkRenderedInstagram,
		Rules:         fmt.Sprintf("An Instagram message requires content, of at most %d bytes, or image_url.", MaxInstagramBytes),
	},
	Price:       PriceRule{Unit: "an Instagram message", Cost: flatPrice},
	Concurrency: 200,
}

func validateInstagram(c *Content) []FieldError {
	v := &validator{}
	if c.Text == "" && c.ImageURL == "" {
		v.add(SlugMissing, "an Instagram message needs content or image_url", "content")
	}
	if len(c.Text) > MaxInstagramBytes {
		v.add(SlugTooLong, fmt.Sprintf("an Instagram text has at most %d bytes", MaxInstagramBytes), "content")
	}
	if c.ImageURL != "" && !IsTemplate(c.ImageURL) && !validURL(c.ImageURL, "https") {
		v.add(SlugValue, "not an https URL", "image_url")
	}
	return v.errs
}

func checkRenderedInstagram(c *Content) error {
	if blank(c.Text) && c.ImageURL == "" {
		return errBlank
	}
	if len(c.Text) > MaxInstagramBytes {
		return fmt.Errorf("the content has over %d bytes once rendered", MaxInstagramBytes)
	}
	if c.ImageURL != "" && !validURL(c.ImageURL, "https") {
		return errors.New("the image URL is not an https URL once rendered")
	}
	return nil
}

// IsInstagramID reports whether s has the form of an Instagram-scoped id: 1 to 32 digits.
func IsInstagramID(s string) bool { return instagramForm.MatchString(s) }
