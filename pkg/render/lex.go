package render

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of the text within one tag or object.
const (
	maxArgs       = 16 << 10 // bytes
	maxExprTokens = 200      // words and signs
	maxExprDepth  = 16       // parentheses and brackets within each other; bounds the recursion of parser and evaluation
	maxFilters    = 20
	maxDigits     = 18 // before the decimal point; every such number fits an int64
	maxDecimals   = 30 // after the decimal point
)

// tokenKind is a class of tokens of Liquid's grammar.
type tokenKind byte

const (
	endOfArgs   tokenKind = iota
	literal               // a text in quotes, a number, true, false or nil
	identifier            // a name
	keyword               // a name and a colon: "limit:"
	property              // a dot and a name: ".plan"
	operator              // == != < > <= >= contains and or in
	punctuation           // ( ) [ ] | , : =
)

// lexeme is one token.
type lexeme struct {
	kind  tokenKind
	text  string // for a literal a quote or nothing, so that it equals no word and no sign
	value any    // of a literal: string, int, float64, bool or nil
}

// lexer splits the text of a tag or an object into tokens. Its errors do not quote the text, which may contain personal data.
type lexer struct {
	src   string
	pos   int
	count int // tokens so far
}

var errSyntax = errors.New("syntax error")

// next returns the next token, or endOfArgs.
func (l *lexer) next() (lexeme, error) {
	for l.pos < len(l.src) && isSpace(l.src[l.pos]) {
		l.pos++
	}
	if l.pos == len(l.src) {
		return lexeme{}, nil
	}
	if l.count++; l.count > maxExprTokens {
		return lexeme{}, fmt.Errorf("over %d words and signs in one tag or object", maxExprTokens)
	}
	c := l.src[l.pos]
	switch {
	case c == '"' || c == '\'':
		end := strings.IndexByte(l.src[l.pos+1:], c)
		if end < 0 {
			return lexeme{}, errors.New("syntax error: a quote is not closed")
		}
		s := l.src[l.pos+1 : l.pos+1+end]
		l.pos += end + 2
		return lexeme{kind: literal, value: s, text: `"`}, nil
	case isDigit(c) || c == '-' && l.pos+1 < len(l.src) && isDigit(l.src[l.pos+1]):
		return l.number()
	case c == '.' && strings.HasPrefix(l.src[l.pos:], ".."):
		return lexeme{}, errors.New("ranges (a..b) are not allowed")
	case c == '.':
		l.pos++
		name, err := l.name()
		return lexeme{kind: property, text: name}, err
	case isNameStart(c):
		return l.word()
	}
	return l.sign()
}

// sign reads an operator or a punctuation character. Operators of two characters come first: <= is not < and =.
func (l *lexer) sign() (lexeme, error) {
	for _, op := range [...]string{"==", "!=", ">=", "<=", "<", ">"} {
		if strings.HasPrefix(l.src[l.pos:], op) {
			l.pos += len(op)
			return lexeme{kind: operator, text: op}, nil
		}
	}
	if c := l.src[l.pos]; strings.IndexByte("()[]|,:=", c) >= 0 {
		l.pos++
		return lexeme{kind: punctuation, text: l.src[l.pos-1 : l.pos]}, nil
	}
	return lexeme{}, errSyntax
}

// number reads a literal int, or a float64 if it has decimals. Numbers beyond the bounds are refused and not rounded. A dot
// without a digit after it is not part of the number.
func (l *lexer) number() (lexeme, error) {
	start := l.pos
	if l.src[l.pos] == '-' {
		l.pos++
	}
	digits := l.digits()
	decimals := 0
	if l.pos+1 < len(l.src) && l.src[l.pos] == '.' && isDigit(l.src[l.pos+1]) {
		l.pos++
		decimals = l.digits()
	}
	if digits > maxDigits || decimals > maxDecimals {
		return lexeme{}, fmt.Errorf("a number has over %d digits, or over %d decimals", maxDigits, maxDecimals)
	}
	text := l.src[start:l.pos]
	if decimals == 0 {
		n, err := strconv.Atoi(text)
		return lexeme{kind: literal, value: n}, err
	}
	f, err := strconv.ParseFloat(text, 64)
	return lexeme{kind: literal, value: f}, err
}

// digits skips digits and returns their number.
func (l *lexer) digits() int {
	start := l.pos
	for l.pos < len(l.src) && isDigit(l.src[l.pos]) {
		l.pos++
	}
	return l.pos - start
}

// word reads an identifier, a keyword, a literal or an operator that is a word.
func (l *lexer) word() (lexeme, error) {
	name, err := l.name()
	if err != nil {
		return lexeme{}, err
	}
	if l.pos < len(l.src) && l.src[l.pos] == ':' {
		l.pos++
		return lexeme{kind: keyword, text: name}, nil
	}
	switch name {
	case "true", "false":
		return lexeme{kind: literal, value: name == "true"}, nil
	case "nil":
		return lexeme{kind: literal}, nil
	case "and", "or", "contains", "in":
		return lexeme{kind: operator, text: name}, nil
	}
	return lexeme{kind: identifier, text: name}, nil
}

// name reads a name: a letter or an underscore; then letters, digits, combining marks, underscores and hyphens; then an
// optional question mark. Letters of all scripts are allowed, as in the library.
func (l *lexer) name() (string, error) {
	start := l.pos
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		switch {
		case isNameStart(c) && c < utf8.RuneSelf, l.pos > start && (isDigit(c) || c == '-'):
			l.pos++
			continue
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRuneInString(l.src[l.pos:])
			if err := foreignSign(r); err != nil {
				return "", err
			}
			if !unicode.IsLetter(r) && (l.pos == start || !unicode.IsDigit(r) && !unicode.IsMark(r)) {
				return "", errors.New("syntax error: a name contains a character that is not a letter")
			}
			l.pos += n
			continue
		}
		break
	}
	if l.pos == start {
		return "", errSyntax
	}
	if l.pos < len(l.src) && l.src[l.pos] == '?' {
		l.pos++
	}
	return l.src[start:l.pos], nil
}

// foreignSign describes the signs that word processors put in the place of those of a template.
func foreignSign(r rune) error {
	switch {
	case strings.ContainsRune("“”„‟‘’‚‛«»‹›", r):
		return fmt.Errorf("syntax error: %c is a typographic quote; use ' or \"", r)
	case unicode.IsSpace(r) || unicode.Is(unicode.Cf, r): // U+00A0 among them
		return fmt.Errorf("syntax error: U+%04X is a space or an invisible character that templates do not know; use a plain space", r)
	}
	return nil
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isNameStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= utf8.RuneSelf
}
