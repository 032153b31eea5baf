package render

import (
	"reflect"
	"sort"
	"strings"
	"unicode/utf8"
)

// The filters of this file replace those of the library. The library compiles regular expressions from their arguments, which
// run a hundred times as long and fail for lengths over 1,000; its uniq compares every text with every other. The results are
// the same (library_test.go), down to the quirks that the comments mention.

// stripHTML removes tags, each from a < to the next > in the same line. A < without a > in its line is kept. It runs in
// linear time: after a line end, the search continues behind it.
func stripHTML(s string) string {
	var b strings.Builder
	for {
		open := strings.IndexByte(s, '<')
		if open < 0 {
			break
		}
		end := strings.IndexAny(s[open:], ">\n")
		switch {
		case end < 0:
			b.WriteString(s)
			return b.String()
		case s[open+end] == '>':
			b.WriteString(s[:open])
		default: // the line ends before a >, so no later < in this line can be closed either
			b.WriteString(s[:open+end+1])
		}
		s = s[open+end+1:]
	}
	if b.Len() == 0 {
		return s
	}
	b.WriteString(s)
	return b.String()
}

// truncate shortens a text whose first line has more than length characters; lines after the first are kept. The ellipsis
// counts as part of the length, in bytes. A length shorter than the ellipsis changes nothing. All three are quirks of the
// library's regular expression.
func truncate(s string, length func(int) int, ellipsis func(string) string) string {
	n, el := length(50), ellipsis("...")
	keep := n - len(el)
	if keep < 0 {
		return s
	}
	line := s
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		line = s[:i]
	}
	if len(line) <= n || utf8.RuneCountInString(line) <= n { // the first condition saves counting the common short line
		return s
	}
	return s[:runes(s, keep)] + el + s[len(line):]
}

// runes returns the length in bytes of the first n characters of s.
func runes(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// truncateWords keeps the first length words and appends the ellipsis. A text with fewer words is kept whole. It still gets
// the ellipsis if it has at least length characters without white space, which is a quirk of the library. Words are separated
// by the white space of regular expressions (\s), which excludes the vertical tab.
func truncateWords(s string, length func(int) int, ellipsis func(string) string) string {
	n, el := length(15), ellipsis("...")
	if n <= 0 {
		return s
	}
	words, chars, last, in := 0, 0, 0, false
	for i, r := range s {
		if r == ' ' || r >= '\t' && r <= '\r' && r != '\v' {
			if in && words == n {
				return s[:i] + el
			}
			in = false
			continue
		}
		if !in {
			words++
		}
		_, width := utf8.DecodeRuneInString(s[i:])
		in, last = true, i+width
		chars++
	}
	if words < n && chars < n {
		return s
	}
	return s[:last] + el
}

// uniq keeps the first of equal elements, in order. Hashable elements are compared by a map in linear time; the others, maps
// and arrays, pairwise. uniqCost charges for the pairs.
func uniq(a []any) []any {
	var out []any
	seen := map[any]bool{}
	var others []any
next:
	for _, v := range a {
		if hashable(v) {
			if seen[v] {
				continue
			}
			seen[v] = true
		} else {
			for _, o := range others {
				if reflect.DeepEqual(v, o) {
					continue next
				}
			}
			others = append(others, v)
		}
		out = append(out, v)
	}
	return out
}

// hashable reports whether v can be a map key. The type switch avoids reflection for the types that JSON produces.
func hashable(v any) bool {
	switch v.(type) {
	case nil, string, bool, int, int64, float64:
		return true
	}
	return reflect.ValueOf(v).Comparable()
}

// sortNatural sorts texts, or maps by one of their texts, without regard to case. An array with anything but texts keeps its
// order. The keys are folded once per element and not in each comparison.
func sortNatural(a []any, key any) []any {
	out := make([]any, len(a))
	copy(out, a)
	if len(out) == 0 {
		return out
	}
	keys := make([]string, len(out))
	if key == nil {
		for i, v := range out {
			s, ok := v.(string)
			if !ok {
				return out
			}
			keys[i] = strings.ToUpper(s)
		}
	} else {
		name, _ := key.(string)
		for i, v := range out {
			if m, ok := v.(map[string]any); ok {
				s, _ := m[name].(string)
				keys[i] = strings.ToLower(s)
			}
		}
	}
	sort.Sort(byKey{out, keys})
	return out
}

// byKey sorts values by keys, and moves both together.
type byKey struct {
	values []any
	keys   []string
}

func (s byKey) Len() int           { return len(s.keys) }
func (s byKey) Less(i, j int) bool { return s.keys[i] < s.keys[j] }
func (s byKey) Swap(i, j int) {
	s.keys[i], s.keys[j] = s.keys[j], s.keys[i]
	s.values[i], s.values[j] = s.values[j], s.values[i]
}
