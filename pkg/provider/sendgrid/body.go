package sendgrid

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"

	"github.com/sendgrid/sendgrid-go/helpers/mail"

	"herald/pkg/message"
)

// body is a request's body with attachments, in parts: JSON, and files whose base64 is made while it is read.
type body struct {
	parts []part
	size  int64 // bytes
}

// part is JSON, or a file.
type part struct {
	json []byte
	file message.FileData
}

// newBody inserts attachments at the end of a request's JSON, an object with members. files are the contents of list.
func newBody(request []byte, list []message.Attachment, files []message.FileData) *body {
	b := &body{}
	next := append(bytes.TrimSuffix(request, []byte("}")), `,"attachments":[`...)
	for i, a := range list {
		if i > 0 {
			next = append(next, ',')
		}
		b.add(part{json: append(next, `{"content":"`...)})
		b.add(part{file: files[i]})
		// The members after the content, without the brace before them.
		more, _ := json.Marshal(mail.Attachment{Type: a.Type, Filename: a.Name, Disposition: "attachment"}) // texts always can be
		next = append([]byte(`",`), more[1:]...)
	}
	b.add(part{json: append(next, "]}"...)})
	return b
}

func (b *body) add(p part) {
	b.parts = append(b.parts, p)
	b.size += int64(len(p.json)) + int64(base64.StdEncoding.EncodedLen(int(p.file.Size())))
}

// reader returns a new reader of the body.
func (b *body) reader() io.ReadCloser {
	readers := make([]io.Reader, len(b.parts))
	for i, p := range b.parts {
		if readers[i] = bytes.NewReader(p.json); p.json == nil {
			readers[i] = &base64Reader{rest: p.file}
		}
	}
	return io.NopCloser(io.MultiReader(readers...))
}

// quantum is how many bytes are encoded at a time, a multiple of 3.
const quantum = 3 << 10

// base64Reader reads the base64 of a file.
type base64Reader struct {
	rest message.FileData
	at   int // in the first piece of rest
	raw  [quantum]byte
	text [quantum / 3 * 4]byte
	left []byte // of text
}

// Read implements io.Reader.
func (r *base64Reader) Read(b []byte) (int, error) {
	if len(r.left) == 0 {
		n := r.fill()
		if n == 0 {
			return 0, io.EOF
		}
		base64.StdEncoding.Encode(r.text[:], r.raw[:n])
		r.left = r.text[:base64.StdEncoding.EncodedLen(n)]
	}
	n := copy(b, r.left)
	r.left = r.left[n:]
	return n, nil
}

// fill reads the next bytes of the file into raw: all that fit, so only the last quantum is padded.
func (r *base64Reader) fill() (n int) {
	for n < len(r.raw) && len(r.rest) > 0 {
		copied := copy(r.raw[n:], r.rest[0][r.at:])
		n, r.at = n+copied, r.at+copied
		if r.at == len(r.rest[0]) {
			r.rest, r.at = r.rest[1:], 0
		}
	}
	return n
}
