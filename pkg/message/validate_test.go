package message

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// mistakes lists errors as "loc slug", sorted by the order in which they are reported.
func mistakes(errs []FieldError) []string {
	var out []string
	for _, e := range errs {
		out = append(out, strings.Trim(fmt.Sprint(e.Loc), "[]")+" "+e.Type)
	}
	return out
}

func headers(n int) []Header {
	list := make([]Header, n)
	for i := range list {
		list[i] = Header{Name: fmt.Sprint("X-", i), Value: "v"}
	}
	return list
}

func TestValidateContent(t *testing.T) {
	long := func(n int) string { return strings.Repeat("ö", n) }
	urls := func(n int) []string {
		return strings.Split(strings.Repeat("https://x.test/a.png ", n-1)+"https://x.test/a.png", " ")
	}
	for name, c := range map[string]struct {
		typ     ChannelType
		content Content
		want    []string
	}{
		"email":                     {Email, Content{Subject: "x", Text: "y", HTML: "z", Sender: "a@acme.test", SenderName: "A"}, nil},
		"email, html only":          {Email, Content{Subject: "x", HTML: "z"}, nil},
		"email, empty":              {Email, Content{}, []string{"subject missing", "content missing"}},
		"email, longest subject":    {Email, Content{Subject: long(998), Text: "y"}, nil},
		"email, long subject":       {Email, Content{Subject: long(999), Text: "y"}, []string{"subject string_too_long"}},
		"email, line in subject":    {Email, Content{Subject: "x\ny", Text: "y"}, []string{"subject value_error"}},
		"email, longest name":       {Email, Content{Subject: "x", Text: "y", SenderName: long(256)}, nil},
		"email, long name":          {Email, Content{Subject: "x", Text: "y", SenderName: long(257)}, []string{"sender_name string_too_long"}},
		"email, line in name":       {Email, Content{Subject: "x", Text: "y", SenderName: "A\r\nBcc: b"}, []string{"sender_name value_error"}},
		"email, sender is a number": {Email, Content{Subject: "x", Text: "y", Sender: "+15005550006"}, []string{"sender value_error"}},
		"email, others' fields":     {Email, Content{Subject: "x", Text: "y", MediaURLs: urls(1), ImageURL: "https://x.test/a"}, []string{"media_urls extra_forbidden", "image_url extra_forbidden"}},
		"email, reply to":           {Email, Content{Subject: "x", Text: "y", ReplyTo: &Mailbox{Email: "a@acme.test", Name: long(256)}}, nil},
		"email, reply to nobody":    {Email, Content{Subject: "x", Text: "y", ReplyTo: &Mailbox{Email: "acme.test", Name: long(257)}}, []string{"reply_to email value_error", "reply_to name string_too_long"}},
		"email, reply to templates": {Email, Content{Subject: "x", Text: "y", ReplyTo: &Mailbox{Email: "{{id}}@acme.test", Name: "{{ id }}"}}, []string{"reply_to email value_error", "reply_to name value_error"}},
		"email, line in reply to":   {Email, Content{Subject: "x", Text: "y", ReplyTo: &Mailbox{Email: "a@acme.test", Name: "A\nB"}}, []string{"reply_to name value_error"}},
		"email, headers":            {Email, Content{Subject: "x", Text: "y", Headers: headers(20)}, nil},
		"email, 21 headers":         {Email, Content{Subject: "x", Text: "y", Headers: headers(21)}, []string{"headers too_long"}},
		"sms, an email's extras":    {SMS, Content{Text: "y", ReplyTo: &Mailbox{Email: "a@acme.test"}, Headers: headers(1)}, []string{"reply_to extra_forbidden", "headers extra_forbidden"}},
		"instagram, these too":      {InstagramDM, Content{Text: "y", ReplyTo: &Mailbox{Email: "a@acme.test"}, Headers: headers(1)}, []string{"reply_to extra_forbidden", "headers extra_forbidden"}},
		"sms":                       {SMS, Content{Text: "y", Sender: "ACME", MediaURLs: urls(10)}, nil},
		"sms, http media":           {SMS, Content{Text: "y", MediaURLs: []string{"http://x.test/a.png"}}, nil},
		"sms, empty":                {SMS, Content{}, []string{"content missing"}},
		"sms, longest text":         {SMS, Content{Text: long(1600)}, nil},
		"sms, long text":            {SMS, Content{Text: long(1601)}, []string{"content string_too_long"}},
		"sms, eleven media":         {SMS, Content{Text: "y", MediaURLs: urls(11)}, []string{"media_urls too_long"}},
		"sms, odd media":            {SMS, Content{Text: "y", MediaURLs: []string{"https://x.test/a", "ftp://x.test/a", "x"}}, []string{"media_urls 1 value_error", "media_urls 2 value_error"}},
		"sms, sender is an address": {SMS, Content{Text: "y", Sender: "a@acme.test"}, []string{"sender value_error"}},
		"sms, others' fields":       {SMS, Content{Text: "y", Subject: "x", HTML: "z", SenderName: "A", ImageURL: "https://x.test"}, []string{"subject extra_forbidden", "html_content extra_forbidden", "sender_name extra_forbidden", "image_url extra_forbidden"}},
		"instagram":                 {InstagramDM, Content{Text: "y", ImageURL: "https://x.test/a.png"}, nil},
		"instagram, picture only":   {InstagramDM, Content{ImageURL: "https://x.test/a.png"}, nil},
		"instagram, empty":          {InstagramDM, Content{}, []string{"content missing"}},
		"instagram, longest text":   {InstagramDM, Content{Text: long(500)}, nil},
		"instagram, long text":      {InstagramDM, Content{Text: long(500) + "x"}, []string{"content string_too_long"}},
		"instagram, http picture":   {InstagramDM, Content{ImageURL: "http://x.test/a.png"}, []string{"image_url value_error"}},
		"instagram, its own sender": {InstagramDM, Content{Text: "y", Sender: "17841400000000000"}, []string{"sender extra_forbidden"}},
	} {
		if got := mistakes(ValidateContent(c.typ, &c.content)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestCheckRendered(t *testing.T) {
	long := func(n int) string { return strings.Repeat("ö", n) }
	for name, c := range map[string]struct {
		typ     ChannelType
		content Content
		want    string // part of the error
	}{
		"email": {Email, Content{Subject: "x", Text: "y"}, ""}, "email, html": {Email, Content{Subject: "x", Text: " ", HTML: "y"}, ""},
		"email, no subject": {Email, Content{Text: "y"}, "the subject is empty"}, "email, blank": {Email, Content{Subject: "x", Text: " ", HTML: "\n"}, "the content is empty"},
		"email, longest": {Email, Content{Subject: long(998), Text: "y"}, ""}, "email, long": {Email, Content{Subject: long(999), Text: "y"}, "over 998 characters"},
		"sms": {SMS, Content{Text: "y"}, ""}, "sms, blank": {SMS, Content{Text: " "}, "the content is empty"},
		"sms, longest": {SMS, Content{Text: long(1600)}, ""}, "sms, long": {SMS, Content{Text: long(1601)}, "over 1600 characters"},
		"instagram": {InstagramDM, Content{Text: "y"}, ""}, "instagram, picture": {InstagramDM, Content{Text: " ", ImageURL: "https://x.test/a"}, ""},
		"instagram, blank":   {InstagramDM, Content{Text: " "}, "the content is empty"},
		"instagram, longest": {InstagramDM, Content{Text: long(500)}, ""}, "instagram, long": {InstagramDM, Content{Text: long(501)}, "over 1000 bytes"},
	} {
		err := c.typ.Spec().Content.CheckRendered(&c.content)
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestValidURL(t *testing.T) {
	for in, want := range map[string]bool{
		"https://x.test/a.png": true, "http://x.test": false, "https://": false, "https://u:p@x.test": false, "https://x.test/\n": false, "": false,
		"https://x.test/" + strings.Repeat("a", MaxURL-15): true, "https://x.test/" + strings.Repeat("a", MaxURL-14): false, "//x.test": false, "https:x.test": false,
	} {
		if got := validURL(in, "https"); got != want {
			t.Errorf("validURL(%.40q…) = %v", in, got)
		}
	}
}

func TestIsControl(t *testing.T) {
	for r, want := range map[rune]bool{
		0: true, '\n': true, 0x1f: true, ' ': false, '~': false, 0x7f: true, 0x9f: true, 0xa0: false, 0x2028: true, 0x2029: true, 0x2027: false, 0x202a: false,
	} {
		if got := IsControl(r); got != want {
			t.Errorf("IsControl(%U) = %v", r, got)
		}
	}
}
