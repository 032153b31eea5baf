package contactfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// lookFor is how many bytes of the text decide the line end.
const lookFor = 64 << 10

// Line is one line of a text without its end. Number counts from 1.
type Line struct {
	Text   string
	Number int
}

// Lines reads a text line by line and returns the lines in UTF-8. LF and CRLF end a line; in a file without LF, CR does.
type Lines struct {
	r       *bufio.Reader
	charset charset
	end     byte // '\n' or '\r'
	number  int  // of the last line
	back    []Line
	max     int // bytes of a line
}

// NewLines prepares a text for reading. The error is a *FileError for an unknown encoding and for files that are no text,
// or the error of r.
func NewLines(r io.Reader, charsetName string) (*Lines, error) {
	decoded, cs, err := decode(r, charsetName)
	if err != nil {
		return nil, err
	}
	l := &Lines{r: bufio.NewReaderSize(decoded, lookFor), charset: cs, end: '\n', max: MaxRow}
	start, _ := peekUntil(l.r, '\n') // an error returns when the lines are read
	if bytes.IndexByte(start, '\n') < 0 && bytes.IndexByte(start, '\r') >= 0 {
		l.end = '\r'
	}
	return l, nil
}

// peekUntil returns the beginning of r up to a byte and beyond, as far as it has arrived, or lookFor bytes. It does not wait for
// more than it needs: the rows of an upload that breaks off are kept, so they must not wait for those behind them.
func peekUntil(r *bufio.Reader, c byte) ([]byte, error) {
	for n := 1; ; n = r.Buffered() + 1 {
		_, err := r.Peek(min(n, lookFor))
		start, _ := r.Peek(r.Buffered())
		if err != nil || bytes.IndexByte(start, c) >= 0 || len(start) >= lookFor {
			return start, err
		}
	}
}

// Bound sets how many bytes a line may have; the default is MaxRow.
func (l *Lines) Bound(n int) { l.max = n }

// Charset returns the name of the text's encoding.
func (l *Lines) Charset() string { return l.charset.name }

// Next returns the next line. The error is io.EOF after the last one, a *RowError for a line that is too long or, in a text
// whose encoding was named, not valid, a *FileError for a text that is not in the encoding that it must be in, or the error
// of the underlying reader.
func (l *Lines) Next() (Line, error) {
	if n := len(l.back); n > 0 {
		line := l.back[n-1]
		l.back = l.back[:n-1]
		return line, nil
	}
	text, long, err := l.read()
	line := Line{Number: l.number + 1}
	if err != nil && !errors.Is(err, io.EOF) {
		return line, err // a line that breaks off is none
	}
	if err != nil && text == "" && !long {
		return line, err
	}
	l.number++
	switch {
	case long:
		return line, &RowError{fmt.Sprintf("a row has at most %d bytes", l.max)}
	case utf8.ValidString(text):
		line.Text = text
		return line, nil
	case l.charset.named:
		return line, &RowError{"not valid " + l.charset.name}
	}
	return line, &FileError{Option: "charset", Line: line.Number, Msg: fmt.Sprintf("line %d is not valid UTF-8: name the encoding of the file, for example windows-1252", line.Number)}
}

// read reads up to the end of a line. A line above the bound is read to its end in constant memory, and long is true.
func (l *Lines) read() (text string, long bool, err error) {
	var part, whole []byte
	for {
		part, err = l.r.ReadSlice(l.end)
		ended := err == nil
		if ended {
			part = part[:len(part)-1]
		}
		switch {
		case long:
		case len(whole)+len(part) > l.max:
			long = true
		case whole == nil && ended:
			return strings.TrimSuffix(string(part), "\r"), false, nil
		default:
			whole = append(whole, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	if errors.Is(err, io.EOF) && (long || len(whole) > 0) {
		err = nil // the last line has no end
	}
	return strings.TrimSuffix(string(whole), "\r"), long, err
}

// NextFilled returns the next line that is not blank, see Next.
func (l *Lines) NextFilled() (Line, error) {
	for {
		line, err := l.Next()
		if err != nil || !isBlank(line.Text) {
			return line, err
		}
	}
}

func isBlank(s string) bool { return strings.TrimSpace(s) == "" }

// unread makes Next return lines once more.
func (l *Lines) unread(lines []Line) {
	for i := len(lines) - 1; i >= 0; i-- {
		l.back = append(l.back, lines[i])
	}
}

// refuse returns an error if the text begins with one of the characters, which begin JSON.
func (l *Lines) refuse(first ...byte) error {
	start, _ := l.r.Peek(l.r.Buffered())
	start = bytes.TrimLeft(start, " \t\r\n")
	if len(start) > 0 && bytes.IndexByte(first, start[0]) >= 0 {
		return &FileError{Msg: "the file looks like JSON; send JSON with one lead per line as application/x-ndjson"}
	}
	return nil
}
