package message

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Limits of the attachments of an email.
const (
	MaxAttachments     = 10
	MaxAttachmentBytes = 20 << 20 // of all attachments together; as base64 they fit SendGrid's 30 MB with the text
	MaxAttachmentName  = 255      // bytes, as in most file systems
)

// Attachment is a file that an email carries, without its bytes.
type Attachment struct {
	Name string `json:"name"`
	Type string `json:"type"` // media type
	Size int64  `json:"size"` // bytes
}

// FileData is the bytes of one attachment in pieces of at most FilePiece. It is read only once it is complete, so that any number of
// calls share it.
type FileData [][]byte

// FilePiece is the maximum size of a piece of FileData in bytes. Pieces keep every copy of a file that is under way small: one is
// read from a connection, written to the database or encoded at a time. A piece is a multiple of 3 bytes, so it has its own base64.
const FilePiece = 192 << 10

// Size returns the number of bytes.
func (d FileData) Size() int64 {
	var n int64
	for _, piece := range d {
		n += int64(len(piece))
	}
	return n
}

// AttachmentBytes returns the number of bytes of all attachments together.
func (c *Content) AttachmentBytes() int64 {
	var n int64
	for _, a := range c.Attachments {
		n += a.Size
	}
	return n
}

// unknownMedia is the media type of a file of which nothing else is known (RFC 2046, 4.5.1).
const unknownMedia = "application/octet-stream"

// mediaTypes are the media types of the files that people attach, by extension. mime.TypeByExtension reads tables of the machine, so
// its result would depend on the server that accepts the request.
var mediaTypes = map[string]string{
	".avif": "image/avif", ".bmp": "image/bmp", ".gif": "image/gif", ".heic": "image/heic", ".jpeg": "image/jpeg", ".jpg": "image/jpeg",
	".png": "image/png", ".svg": "image/svg+xml", ".tif": "image/tiff", ".tiff": "image/tiff", ".webp": "image/webp",
	".csv": "text/csv", ".htm": "text/html", ".html": "text/html", ".ics": "text/calendar", ".md": "text/markdown", ".txt": "text/plain",
	".vcf": "text/vcard", ".xml": "text/xml", ".json": "application/json", ".pdf": "application/pdf", ".rtf": "application/rtf",
	".gz": "application/gzip", ".zip": "application/zip", ".mp3": "audio/mpeg", ".mp4": "video/mp4", ".wav": "audio/wav",
	".doc": "application/msword", ".xls": "application/vnd.ms-excel", ".ppt": "application/vnd.ms-powerpoint",
	".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	".odt":  "application/vnd.oasis.opendocument.text", ".ods": "application/vnd.oasis.opendocument.spreadsheet",
}

// MediaTypeOf returns the media type of a file by the extension of its name, application/octet-stream for an unknown one.
func MediaTypeOf(name string) string {
	if t, ok := mediaTypes[strings.ToLower(path.Ext(name))]; ok {
		return t
	}
	return unknownMedia
}

// mediaTypeForm is the form of a media type without parameters (RFC 6838, 4.2). SendGrid refuses parameters.
var mediaTypeForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$`)

// validateAttachments checks names, types and sizes.
func (v *validator) validateAttachments(c *Content) {
	if len(c.Attachments) > MaxAttachments {
		v.add(SlugListLong, fmt.Sprintf("must have at most %d elements", MaxAttachments), "attachments")
		return
	}
	for i, a := range c.Attachments {
		switch {
		case a.Name == "":
			v.add(SlugTooShort, "a file needs a name", "attachments", i, "name")
		case len(a.Name) > MaxAttachmentName:
			v.add(SlugTooLong, fmt.Sprintf("a file name has at most %d bytes", MaxAttachmentName), "attachments", i, "name")
		case hasControl(a.Name) || strings.ContainsAny(a.Name, `/\`) || blank(strings.Trim(a.Name, ".")):
			v.add(SlugValue, "must be the name of a file, without a path and without control characters", "attachments", i, "name")
		}
		if !mediaTypeForm.MatchString(a.Type) {
			v.add(SlugValue, "must be a media type without parameters, such as application/pdf", "attachments", i, "type")
		}
		if a.Size <= 0 {
			v.add(SlugTooShort, "a file must not be empty", "attachments", i, "content")
		}
	}
	if c.AttachmentBytes() > MaxAttachmentBytes {
		v.add(SlugTooLong, fmt.Sprintf("attachments have at most %d bytes in all", MaxAttachmentBytes), "attachments")
	}
}
