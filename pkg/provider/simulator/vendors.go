package simulator

import (
	"github.com/valyala/fasthttp"
)

// vendors is the table of simulated vendors, one entry each. The first entry whose path matches gets a call.
var vendors = []vendor{sendGrid, twilio, instagram}

// answer writes one answer of a vendor.
type answer func(c *fasthttp.RequestCtx)

// vendor is the sending API of one vendor. All vendors send with POST.
type vendor struct {
	name string   // the provider's name in Herald
	path []string // segments of the path; "*" matches any segment

	// read returns the message of a call, or the vendor's refusal of an invalid call.
	read func(c *fasthttp.RequestCtx, path []string) (sent, answer)

	refusals map[Fault]answer         // of Throttle, Unauthorize, Forbid and Refuse
	quote    func(text string) answer // a refusal with a text
	refuse   func(r Refusal) answer
}

// sent is the message of one valid call.
type sent struct {
	Accepted
	idPrefix string // of the vendor's message ids
	fault    Fault  // the outcome for which the recipient stands
	ok       func(c *fasthttp.RequestCtx, id string)
}

func matches(pattern, path []string) bool {
	if len(path) != len(pattern) {
		return false
	}
	for i, p := range pattern {
		if p != "*" && p != path[i] {
			return false
		}
	}
	return true
}
