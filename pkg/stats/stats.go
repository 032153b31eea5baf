// Package stats computes a bulk's figures. One byte, the state code, says how a message stands; counts by state code say how a
// bulk stands; the statistics follow from these counts alone. The package must not know Redis or the database, which both store
// such counts.
package stats

import (
	"math"

	"herald/pkg/message"
)

// MessageState is the state of one message of a bulk. Seq is its number in the bulk, from 0. Waiting marks an UNKNOWN message that
// will be sent once more unless an event of the provider settles it first. Cost is set for accepted messages.
type MessageState struct {
	Seq     int64
	Status  message.Status
	Reason  message.Reason
	Waiting bool
	Cost    message.Micros
}

// Counts are the messages of a bulk by state code, and the cost of the accepted ones together.
type Counts struct {
	By   map[StateCode]int64
	Cost message.Micros
}

// Add counts n messages of one state, and its cost once.
func (c *Counts) Add(m MessageState, n int64) {
	if c.By == nil {
		c.By = map[StateCode]int64{}
	}
	if s := m.Code(); s != 0 {
		c.By[s] += n
	}
	c.Cost += m.Cost
}

// Released returns how many messages occupy neither a worker nor the queue: settled and waiting ones.
func (c Counts) Released() int64 {
	var n int64
	for _, v := range c.By {
		n += v
	}
	return n
}

// Settled returns how many messages have reached a final state.
func (c Counts) Settled() int64 {
	var n int64
	for s, v := range c.By {
		if _, _, waiting := s.State(); !waiting {
			n += v
		}
	}
	return n
}

// Figures are the numbers that a bulk's statistics consist of.
type Figures struct {
	Total, Sent, Failed, Pending, Unknown int64
	SuccessRate                           float64 // percent with two decimals, 0 when Total is 0
	Reasons                               map[message.Reason]int64
	Cost                                  message.Micros
}

// Compute returns the figures of an audience of total leads. Sent counts messages that a provider
// accepted, including those that failed later; Failed counts every other final state, Pending the rest.
func Compute(total int64, c Counts) Figures {
	f := Figures{Total: total, Reasons: map[message.Reason]int64{}, Cost: c.Cost}
	for s, n := range c.By {
		status, reason, waiting := s.State()
		if n <= 0 {
			continue
		}
		if status == message.Unknown {
			f.Unknown += n
		}
		switch {
		case waiting:
		case status.Accepted():
			f.Sent += n
		default:
			f.Failed += n
			if reason != message.NoReason {
				f.Reasons[reason] += n
			}
		}
	}
	if f.Pending = total - f.Sent - f.Failed; f.Pending < 0 {
		f.Pending = 0
	}
	if total > 0 {
		f.SuccessRate = math.Round(float64(f.Sent)*1e4/float64(total)) / 100
	}
	return f
}
