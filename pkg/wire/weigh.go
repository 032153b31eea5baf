package wire

// What a tree takes on a 64-bit machine, measured with Go 1.26 and rounded up: an empty map or slice with its interface;
// an element with its interface, the header of its string, and what growing the slice leaves behind; a member of a small
// map, which has room for eight.
const (
	weightContainer = 64
	weightElement   = 48
	weightMember    = 240
)

// Weigh returns an upper bound of the memory, in bytes, of the tree that Decode makes of a body, without decoding it. For more
// than MaxNodes values it returns the error of Decode. The weight of invalid JSON is arbitrary.
func Weigh(body []byte) (int64, error) {
	weight, nodes := int64(len(body)), 1
	quoted, opened := false, false
	for i := 0; i < len(body) && nodes <= MaxNodes; i++ {
		c := body[i]
		switch {
		case quoted:
			switch c {
			case '\\':
				i++
			case '"':
				quoted = false
			}
			continue
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		case opened && c != ']' && c != '}': // the first of its container; every other comes after a comma
			nodes++
			weight += weightElement
		}
		opened = false
		switch c {
		case '"':
			quoted = true
		case '{', '[':
			opened = true
			weight += weightContainer
		case ',':
			nodes++
			weight += weightElement
		case ':':
			nodes++
			weight += weightMember
		}
	}
	if nodes > MaxNodes {
		return 0, tooManyNodes()
	}
	return weight, nil
}
