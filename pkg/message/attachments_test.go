package message

import (
	"slices"
	"strings"
	"testing"
)

// File names as programs and people give them. A name that could leave the folder in which a reader saves it is refused.
func TestCaseAttachments(t *testing.T) {
	for name, c := range map[string]struct {
		file Attachment
		want []string
	}{
		"a file":                {Attachment{"invoice.pdf", "application/pdf", 1}, nil},
		"umlauts and spaces":    {Attachment{"Rechnung März (2).pdf", "application/pdf", 1}, nil},
		"no extension":          {Attachment{"README", "text/plain", 1}, nil},
		"a hidden file":         {Attachment{".htaccess", "text/plain", 1}, nil},
		"255 bytes":             {Attachment{strings.Repeat("ö", 127) + "x", "text/plain", 1}, nil},
		"256 bytes":             {Attachment{strings.Repeat("ö", 128), "text/plain", 1}, []string{"attachments 0 name string_too_long"}},
		"no name":               {Attachment{"", "text/plain", 1}, []string{"attachments 0 name string_too_short"}},
		"a path":                {Attachment{"../etc/passwd", "text/plain", 1}, []string{"attachments 0 name value_error"}},
		"a path of Windows":     {Attachment{`C:\invoice.pdf`, "text/plain", 1}, []string{"attachments 0 name value_error"}},
		"a folder":              {Attachment{"..", "text/plain", 1}, []string{"attachments 0 name value_error"}},
		"blank":                 {Attachment{" ", "text/plain", 1}, []string{"attachments 0 name value_error"}},
		"lines":                 {Attachment{"a\r\nContent-Type: text/html", "text/plain", 1}, []string{"attachments 0 name value_error"}},
		"a vendor's type":       {Attachment{"a", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", 1}, nil},
		"no type":               {Attachment{"a", "", 1}, []string{"attachments 0 type value_error"}},
		"half a type":           {Attachment{"a", "pdf", 1}, []string{"attachments 0 type value_error"}},
		"a type with parameter": {Attachment{"a", "text/plain; charset=utf-8", 1}, []string{"attachments 0 type value_error"}},
		"lines in the type":     {Attachment{"a", "text/plain\r\nX: y", 1}, []string{"attachments 0 type value_error"}},
		"empty":                 {Attachment{"a", "text/plain", 0}, []string{"attachments 0 content string_too_short"}},
		"all bytes":             {Attachment{"a", "text/plain", MaxAttachmentBytes}, nil},
		"one more":              {Attachment{"a", "text/plain", MaxAttachmentBytes + 1}, []string{"attachments string_too_long"}},
		"everything":            {Attachment{"/", "x", 0}, []string{"attachments 0 name value_error", "attachments 0 type value_error", "attachments 0 content string_too_short"}},
	} {
		if got := mistakes(ValidateContent(Email, &Content{Subject: "s", Text: "t", Attachments: []Attachment{c.file}})); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	many := slices.Repeat([]Attachment{{"a", "text/plain", MaxAttachmentBytes / 10}}, 11)
	if got := mistakes(ValidateContent(Email, &Content{Subject: "s", Text: "t", Attachments: many[:10]})); got != nil {
		t.Errorf("10 files: %q", got)
	}
	if got := mistakes(ValidateContent(Email, &Content{Subject: "s", Text: "t", Attachments: many})); !slices.Equal(got, []string{"attachments too_long"}) {
		t.Errorf("11 files: %q", got)
	}
	many[3].Name, many[3].Size = "", MaxAttachmentBytes
	if got := mistakes(ValidateContent(Email, &Content{Subject: "s", Text: "t", Attachments: many[:10]})); !slices.Equal(got, []string{"attachments 3 name string_too_short", "attachments string_too_long"}) {
		t.Errorf("a mistake of the fourth: %q", got)
	}
	for _, typ := range []ChannelType{SMS, InstagramDM} {
		if got := mistakes(ValidateContent(typ, &Content{Text: "t", Attachments: many[:1]})); !slices.Equal(got, []string{"attachments extra_forbidden"}) {
			t.Errorf("%s: %q", typ, got)
		}
	}
}

func TestMediaTypeOf(t *testing.T) {
	for name, want := range map[string]string{
		"a.pdf": "application/pdf", "A.PDF": "application/pdf", "a.tar.gz": "application/gzip", "a": "application/octet-stream", "a.": "application/octet-stream",
		".pdf": "application/pdf", "a.xyz": "application/octet-stream", "": "application/octet-stream",
	} {
		if got := MediaTypeOf(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	for extension, typ := range mediaTypes {
		if !mediaTypeForm.MatchString(typ) || !strings.HasPrefix(extension, ".") {
			t.Errorf("%s: %s", extension, typ)
		}
	}
}

func TestSizes(t *testing.T) {
	if n := (FileData{[]byte("ab"), nil, []byte("c")}).Size(); n != 3 {
		t.Errorf("%d bytes", n)
	}
	if n := (&Content{Attachments: []Attachment{{Size: 2}, {Size: 5}}}).AttachmentBytes(); n != 7 {
		t.Errorf("%d bytes", n)
	}
}
