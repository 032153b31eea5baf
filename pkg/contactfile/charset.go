package contactfile

import (
	"bufio"
	"bytes"
	"io"
	"slices"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// charset is the encoding of a text.
type charset struct {
	name  string
	named bool // by the caller
}

// marks are the byte order marks that name an encoding (Unicode 16.0, section 23.8).
var marks = []struct {
	bytes string
	name  string
	enc   encoding.Encoding // nil: UTF-8
}{
	{"\xef\xbb\xbf", "utf-8", nil},
	{"\xff\xfe", "utf-16le", unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)},
	{"\xfe\xff", "utf-16be", unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)},
}

// decode returns the text of r in UTF-8, without a mark. A mark takes precedence over a name that contradicts it, as in
// browsers (encoding.spec.whatwg.org, "decode"). UTF-8 is not checked here: Lines does that, line by line.
func decode(r io.Reader, name string) (io.Reader, charset, error) {
	var named encoding.Encoding
	cs := charset{name: "utf-8"}
	if name != "" {
		enc, err := htmlindex.Get(name)
		if err == nil {
			cs.name, err = htmlindex.Name(enc)
		}
		if err != nil || cs.name == "replacement" || cs.name == "x-user-defined" {
			return nil, cs, &FileError{Option: "charset", Msg: "is not the name of an encoding that can be read, for example utf-8, utf-16le, windows-1252 or iso-8859-15"}
		}
		named, cs.named = enc, true
	}
	br := bufio.NewReaderSize(r, lookFor)
	start, err := peekUntil(br, '\n')
	if len(start) == 0 && err != nil && err != io.EOF { //nolint:errorlint // a reader returns io.EOF itself
		return nil, cs, err
	}
	if err := refuseKind(start); err != nil {
		return nil, cs, err
	}
	for _, m := range marks {
		if bytes.HasPrefix(start, []byte(m.bytes)) {
			_, _ = br.Discard(len(m.bytes))
			return decoder(br, m.enc), charset{name: m.name}, nil
		}
	}
	if named == nil && bytes.IndexByte(start[:min(len(start), 512)], 0) >= 0 {
		return nil, cs, &FileError{Option: "charset", Msg: "the file has NUL bytes: if it is UTF-16 without a byte order mark, name utf-16le or utf-16be"}
	}
	if cs.name == "utf-8" {
		return br, cs, nil
	}
	return decoder(br, named), cs, nil
}

func decoder(r io.Reader, enc encoding.Encoding) io.Reader {
	if enc == nil {
		return r
	}
	return transform.NewReader(r, enc.NewDecoder())
}

// kinds are the beginnings of files that are often sent by mistake.
var kinds = []struct {
	magic []string
	media bool
	says  string
}{
	{[]string{"PK\x03\x04", "PK\x05\x06"}, true, "the file is a ZIP archive, as .xlsx files are: save the sheet as CSV in UTF-8"},
	{[]string{"\xd0\xcf\x11\xe0"}, true, "the file is an .xls workbook: save the sheet as CSV in UTF-8"},
	{[]string{"%PDF-"}, true, "the file is a PDF document"},
	{[]string{"\x1f\x8b"}, true, "the file is compressed with gzip: send it uncompressed"},
	{[]string{"\x89PNG", "\xff\xd8\xff", "GIF8"}, true, "the file is a picture"},
	{[]string{"<!doctype html", "<html", "<head", "<body"}, false, "the file is an HTML page"},
	{[]string{"<?xml"}, false, "the file is an XML document"},
	{[]string{"begin:vcard"}, false, "the file is a vCard: export the contacts as CSV"},
}

// refuseKind returns an error for a file that is recognisably no table. Binary files are compared byte by byte: in lower case all
// bytes outside UTF-8 are the same, so a text in another encoding would look like a picture.
func refuseKind(start []byte) error {
	text := bytes.ToLower(bytes.TrimLeft(bytes.TrimPrefix(start, []byte("\ufeff")), " \t\r\n"))
	for _, k := range kinds {
		begins := text
		if k.media {
			begins = start
		}
		if slices.ContainsFunc(k.magic, func(m string) bool { return bytes.HasPrefix(begins, []byte(m)) }) {
			return &FileError{Media: k.media, Msg: k.says}
		}
	}
	return nil
}
