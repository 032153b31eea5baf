package render

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what stands within one tag or object.
const (
	maxArgs       = 16 << 10 // bytes
	maxExprTokens = 200
	maxExprDepth  = 16 // parentheses and brackets within each other
	maxFilters    = 20
	maxDigits     = 18 // of a number's whole part: it fits an int64
	maxDecimals   = 30
)

type tokenKind byte

const (
	endOfArgs tokenKind = iota
	literal
	identifier
	keyword  // a name and a colon: "limit:"
	property // a dot and a name: ".plan"
	operator // == != < > <= >= contains and or in
	punctuation
)

type lexeme struct {
	kind  tokenKind
	text  string
	value any // of a literal
}

// lexer splits the text of a tag or an object as Liquid's grammar has it. A mistake is told without quoting the text.
type lexer struct {
	src   string
	pos   int
	count int
}

var errSyntax = errors.New("syntax error")

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

func (l *lexer) digits() int {
	start := l.pos
	for l.pos < len(l.src) && isDigit(l.src[l.pos]) {
		l.pos++
	}
	return l.pos - start
}

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

// name reads a letter or an underscore, letters, digits, marks, underscores and hyphens, and perhaps a question mark.
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
			if !unicode.IsLetter(r) && (l.pos == start || !unicode.IsDigit(r) && !unicode.IsMark(r)) {
				return "", errors.New("syntax error: a name holds a character that is no letter")
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

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isNameStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= utf8.RuneSelf
}
