package contactfile

import (
	"strings"
)

// state is where a parser stands after a line.
type state int

const (
	closed    state = iota // the row is complete
	open                   // a quoted cell goes on in the next line
	malformed              // text follows a closing quote
)

// parser splits rows into cells by RFC 4180. Beyond it, a quote inside a cell that does not begin with one is text, as in
// `5" nail`, and spaces around a quoted cell are ignored.
// It keeps its buffers between rows; the cells of a row are its caller's.
type parser struct {
	delimiter byte
	separator string // the delimiter
	row       []string
	cell      strings.Builder // of a quoted cell
	quoted    bool            // inside quotes
	size      int             // bytes of the row
}

func newParser(delimiter byte) parser {
	return parser{delimiter: delimiter, separator: string(rune(delimiter))}
}

// cells returns the cells of the row, which the next row does not touch.
func (p *parser) cells() []string {
	out := make([]string, len(p.row))
	copy(out, p.row)
	return out
}

// begin parses the first line of a row.
func (p *parser) begin(line string) state {
	p.row, p.quoted, p.size = p.row[:0], false, 0
	p.cell.Reset()
	return p.parse(line)
}

// next parses a further line of a row whose quoted cell is open. The line ends inside cells become LF.
func (p *parser) next(line string) state {
	p.cell.WriteByte('\n')
	p.size++
	return p.parse(line)
}

func (p *parser) parse(line string) state {
	p.size += len(line)
	for {
		if !p.quoted {
			start := strings.TrimLeft(line, " ")
			if start == "" || start[0] != '"' {
				cell, rest, more := strings.Cut(line, p.separator)
				p.row = append(p.row, cell)
				if !more {
					return closed
				}
				line = rest
				continue
			}
			p.quoted, line = true, start[1:]
		}
		text, rest, found := strings.Cut(line, `"`)
		p.cell.WriteString(text)
		if !found {
			return open
		}
		if rest != "" && rest[0] == '"' { // two quotes are one
			p.cell.WriteByte('"')
			line = rest[1:]
			continue
		}
		after := strings.TrimLeft(rest, " ")
		if after != "" && after[0] != p.delimiter {
			return malformed
		}
		p.row = append(p.row, p.cell.String())
		p.cell.Reset()
		p.quoted = false
		if after == "" {
			return closed
		}
		line = after[1:]
	}
}

// delimiters are the candidates of findDelimiter, the first wins a tie.
const delimiters = ",;\t|"

// findDelimiter returns the delimiter of a file: the one that the caller names, that of a line `sep=;`, which Excel writes
// and reads, or the candidate that is most frequent outside quotes in the header line.
func (c *Reader) findDelimiter(named rune) (byte, error) {
	if named != 0 {
		if named > 127 || strings.ContainsRune("\"\r\n\x00", named) {
			return 0, &FileError{Option: "delimiter", Msg: "must be one ASCII character other than a quote and a line end"}
		}
	}
	header, err := c.lines.NextFilled()
	if err != nil {
		return 0, headerError(header.Number, err)
	}
	if v, ok := strings.CutPrefix(strings.ToLower(strings.Trim(header.Text, "\"")), "sep="); ok && len(v) == 1 {
		return delimiterOr(named, v[0]), nil
	}
	c.lines.unread([]Line{header})
	if named != 0 {
		return byte(named), nil
	}
	best, most := byte(','), 0
	for i := range len(delimiters) {
		if n := countOutsideQuotes(header.Text, delimiters[i]); n > most {
			best, most = delimiters[i], n
		}
	}
	return best, nil
}

func delimiterOr(named rune, otherwise byte) byte {
	if named != 0 {
		return byte(named)
	}
	return otherwise
}

func countOutsideQuotes(line string, c byte) (n int) {
	quoted := false
	for i := range len(line) {
		switch line[i] {
		case '"':
			quoted = !quoted
		case c:
			if !quoted {
				n++
			}
		}
	}
	return n
}
