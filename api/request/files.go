package request

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/labstack/echo/v4"

	"herald/pkg/message"
)

// filePath is the path of a file's base64 text in a body: message_data.attachments[i].content.
var filePath = [...]string{"message_data", "attachments", "", "content"}

// scanAfter is the number of bytes of a body after which its files are taken out while it arrives. A shorter body is read whole, and its
// files are decoded from its tree: scanning every body would cost every request.
const scanAfter = 64 << 10

// File is a file of a request, decoded from base64 while its text arrives, so that the text is never in memory as a whole.
type File struct {
	Data message.FileData
	Size int64 // bytes of Data

	index   int // of its element of the array
	room    *fileRoom
	quad    [4]byte // characters that are not decoded yet
	n       int     // of them
	ended   bool    // padding was read
	invalid bool
	over    bool // the files together exceed their bound with this one
}

// fileRoom bounds the files of one request together.
type fileRoom struct {
	left    int64                  // bytes that may still be stored
	over    bool                   // more than that came
	reserve func(size int64) error // reserves memory
}

// Mistake returns the kind and the description of what is wrong with the file, "" for nothing.
func (f *File) Mistake() (slug, msg string) {
	switch {
	case f.over:
		return message.SlugTooLong, fmt.Sprintf("attachments have at most %s in all", Size(message.MaxAttachmentBytes))
	case f.invalid:
		return message.SlugValue, "must be base64 (RFC 4648, section 4), with its padding and without a data: prefix"
	case f.Size == 0 && !f.room.over:
		return message.SlugTooShort, "a file must not be empty"
	}
	return "", ""
}

// digest returns a text that stands for the file in the fingerprint of a request.
func (f *File) digest() string {
	h := sha256.New()
	for _, piece := range f.Data {
		_, _ = h.Write(piece)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

const (
	quickText  = 1024              // characters that are decoded at once
	quickBytes = quickText / 4 * 3 // bytes that they are
	firstPiece = 4 * quickBytes    // bytes of the first piece of a file, which grows fourfold
)

// feed decodes characters of the file's text.
func (f *File) feed(text []byte) error {
	var out [quickBytes]byte
	for len(text) > 0 && !f.invalid && !f.room.over {
		if f.n == 0 && !f.ended && len(text) >= quickText {
			// Line ends or padding make it fewer bytes or an error. Then the characters are read one by one.
			if n, err := base64.StdEncoding.Decode(out[:], text[:quickText]); err == nil && n == quickBytes {
				if err := f.store(out[:]); err != nil {
					return err
				}
				text = text[quickText:]
				continue
			}
		}
		step := text[:min(len(text), quickText)]
		text = text[len(step):]
		for _, c := range step {
			if err := f.character(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// character decodes one character.
func (f *File) character(c byte) error {
	if c == '\r' || c == '\n' || f.invalid {
		return nil
	}
	if f.ended { // the padding ends a text
		f.invalid = true
		return nil
	}
	f.quad[f.n] = c
	if f.n++; f.n < len(f.quad) {
		return nil
	}
	f.n = 0
	var out [3]byte
	n, err := base64.StdEncoding.Decode(out[:], f.quad[:])
	if f.invalid = err != nil; f.invalid {
		return nil
	}
	f.ended = n < len(out)
	return f.store(out[:n])
}

// end ends the text.
func (f *File) end() {
	if f.n > 0 {
		f.invalid = true
	}
	if f.invalid {
		f.Data = nil
	}
}

// store appends bytes to the file. Beyond the bound of all files it drops the file and everything that follows.
func (f *File) store(b []byte) error {
	if f.room.left -= int64(len(b)); f.room.left < 0 {
		f.room.over, f.over = true, true
		f.Data, f.Size = nil, 0
		return nil
	}
	f.Size += int64(len(b))
	for len(b) > 0 {
		last := len(f.Data) - 1
		if last < 0 || len(f.Data[last]) == cap(f.Data[last]) {
			if err := f.grow(); err != nil {
				return err
			}
			last = len(f.Data) - 1
		}
		piece := f.Data[last]
		n := min(len(b), cap(piece)-len(piece))
		f.Data[last] = append(piece, b[:n]...)
		b = b[n:]
	}
	return nil
}

// grow makes room: a larger first piece, or a further piece.
func (f *File) grow() error {
	size := message.FilePiece
	if len(f.Data) == 0 {
		size = firstPiece
	} else if len(f.Data) == 1 && cap(f.Data[0]) < message.FilePiece {
		size = min(4*cap(f.Data[0]), message.FilePiece)
	}
	if err := f.room.reserve(int64(size)); err != nil {
		return err
	}
	piece := make([]byte, 0, size)
	if len(f.Data) == 1 && cap(f.Data[0]) < message.FilePiece {
		f.Data[0] = append(piece, f.Data[0]...)
		return nil
	}
	f.Data = append(f.Data, piece)
	return nil
}

// extractor takes the texts of files out of a JSON body while it arrives. The texts that it leaves are empty strings, so what remains
// is as valid as the body was; Decode finds the mistakes. It follows objects and arrays no deeper than filePath.
type extractor struct {
	room  fileRoom
	files []*File

	depth   int // open containers
	levels  [len(filePath)]level
	quoted  bool   // within a string
	escaped bool   // after a backslash of the string
	isKey   bool   // the string is a key
	key     []byte // the first bytes of the key
	file    *File  // the string is the text of this file
	escape  []byte // the bytes so far of an escape sequence in the text

	kept    int64 // bytes that were not taken out
	removed int64 // bytes of the text of file
	cuts    []fileCut
}

// level is one of the outermost containers.
type level struct {
	kind    byte // { or [
	wantKey bool // the next string is a key
	match   bool // the last key is that of filePath
	index   int  // of the element, in an array
}

// fileCut is a place of what is kept at which bytes were taken out.
type fileCut struct{ at, removed int64 }

// maxFileKey is the length of the longest key in filePath, plus one for a longer key.
const maxFileKey = len("message_data") + 1

// filter takes the files out of the next part of a body. It returns what remains, at the beginning of b.
func (x *extractor) filter(b []byte) ([]byte, error) {
	rest := b[:0]
	for i := 0; i < len(b); i++ {
		if x.file != nil {
			n, err := x.text(b[i:])
			if err != nil {
				return nil, err
			}
			if i += n; i == len(b) {
				break
			}
		}
		rest = append(rest, b[i])
		x.kept++
		x.read(b[i])
	}
	return rest, nil
}

// text decodes the part of a file's text at the beginning of b and returns its length. The text ends before a quotation mark.
func (x *extractor) text(b []byte) (n int, err error) {
	defer func() { x.removed += int64(n) }()
	for n < len(b) {
		if len(x.escape) > 0 {
			x.escape = append(x.escape, b[n])
			n++
			if err := x.unescape(); err != nil {
				return n, err
			}
			continue
		}
		from := n
		for n < len(b) && b[n] != '"' && b[n] != '\\' {
			n++
		}
		if err := x.file.feed(b[from:n]); err != nil {
			return n, err
		}
		switch {
		case n == len(b):
		case b[n] == '"':
			x.file.end()
			x.cuts, x.file = append(x.cuts, fileCut{x.kept, x.removed + int64(n)}), nil
			return n, nil
		default:
			x.escape = append(x.escape, b[n])
			n++
		}
	}
	return n, nil
}

// unescape decodes an escape sequence once it is complete. Encoders write / as \/, + as \u002B, and line ends as \r\n.
func (x *extractor) unescape() error {
	short := x.escape[1] != 'u'
	if !short && len(x.escape) < len(`\u002B`) {
		return nil
	}
	c := byte(0) // no character of base64
	if short {
		if at := bytes.IndexByte([]byte("/nr"), x.escape[1]); at >= 0 {
			c = "/\n\r"[at]
		}
	} else if v, err := strconv.ParseUint(string(x.escape[2:]), 16, 8); err == nil {
		c = byte(v)
	}
	x.escape = x.escape[:0]
	return x.file.feed([]byte{c})
}

// read follows the structure of the document over one byte.
func (x *extractor) read(c byte) {
	top := x.top()
	if x.quoted {
		x.readQuoted(c, top)
		return
	}
	switch c {
	case '{', '[':
		if x.depth++; x.depth <= len(x.levels) {
			x.levels[x.depth-1] = level{kind: c, wantKey: c == '{'}
		}
	case '}', ']':
		x.depth = max(x.depth-1, 0)
	case ',':
		if top != nil {
			top.index++
			top.wantKey = top.kind == '{'
		}
	case ':':
		if top != nil {
			top.wantKey = false
		}
	case '"':
		x.quoted, x.isKey, x.key = true, top != nil && top.wantKey, x.key[:0]
		if x.atFile() {
			x.file, x.removed = &File{index: x.levels[2].index, room: &x.room}, 0
			x.files = append(x.files, x.file)
		}
	}
}

// readQuoted follows a string over one byte. A key with an escape sequence is none of filePath: its file stays in the body.
func (x *extractor) readQuoted(c byte, top *level) {
	switch {
	case x.escaped:
		x.escaped = false
	case c == '\\':
		x.escaped = true
	case c == '"':
		x.quoted = false
		if x.isKey {
			top.match = string(x.key) == filePath[x.depth-1]
		}
		return
	}
	if x.isKey && len(x.key) < maxFileKey {
		x.key = append(x.key, c)
	}
}

// top returns the innermost container, nil for one that is deeper than filePath.
func (x *extractor) top() *level {
	if x.depth == 0 || x.depth > len(x.levels) {
		return nil
	}
	return &x.levels[x.depth-1]
}

// atFile reports whether the string that begins is the text of a file. Files beyond the bound of their number stay in the body, whose
// own bound holds for them.
func (x *extractor) atFile() bool {
	l := &x.levels
	return x.depth == len(l) && l[0].match && l[1].match && l[2].kind == '[' && l[3].match && !l[3].wantKey &&
		l[0].kind == '{' && l[1].kind == '{' && l[3].kind == '{' && len(x.files) < message.MaxAttachments
}

// offset returns the position in the whole body of a position in what remains of it.
func (x *extractor) offset(kept int64) int64 {
	all := kept
	for _, cut := range x.cuts {
		if cut.at <= kept {
			all += cut.removed
		}
	}
	return all
}

// TakeFiles returns the files in message_data.attachments of a request, by their index; nil for an element without a text. In the
// decoded body their texts are replaced: by a digest where the body is to be fingerprinted, else by nothing.
func TakeFiles(c echo.Context, o *Object, fingerprint bool) ([]*File, error) {
	data, _ := o.Value()[filePath[0]].(map[string]any)
	list, _ := data[filePath[1]].([]any)
	if len(list) == 0 || len(list) > message.MaxAttachments {
		return nil, nil
	}
	grant := GrantOf(c)
	room := fileRoom{left: message.MaxAttachmentBytes, reserve: grant.reserveFile}
	if grant.extractor != nil {
		room = grant.extractor.room
	}
	files := make([]*File, len(list))
	for i, v := range list {
		element, _ := v.(map[string]any)
		text, ok := element[filePath[3]].(string)
		if !ok {
			continue
		}
		f := grant.file(i)
		if f == nil {
			f = &File{index: i, room: &room}
			if err := f.decode(text); err != nil {
				return nil, err
			}
		}
		files[i] = f
		if element[filePath[3]] = ""; fingerprint {
			element[filePath[3]] = f.digest()
		}
	}
	return files, nil
}

// decode decodes a whole text.
func (f *File) decode(text string) error {
	for text != "" {
		n := min(len(text), quickText)
		if err := f.feed([]byte(text[:n])); err != nil {
			return err
		}
		text = text[n:]
	}
	f.end()
	return nil
}
