package wire

// Bytes of a tree on a 64-bit machine, measured with Go 1.26 and rounded up.
const (
	weightContainer = 64  // an empty map or slice and its interface
	weightElement   = 48  // an interface, a string header, and the garbage of growing the slice
	weightMember    = 240 // a member of a small map, which has room for eight
)

// Weigh returns an upper bound of the memory, in bytes, of the tree that Decode builds from a body, without decoding it. It
// reads the body once and allocates nothing, so memory can be reserved before it is used. For more than MaxNodes values it
// returns the error of Decode. The weight of invalid JSON is arbitrary; Decode rejects it afterwards.
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
		case opened && c != ']' && c != '}': // the first element of a container; every other follows a comma
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
