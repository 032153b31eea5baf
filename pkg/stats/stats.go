// Package stats is the arithmetic of a bulk's figures: one byte says how a message stands, counts by that byte say
// how a bulk stands, and the statistics are made of nothing else. It knows neither Redis nor the database, which both
// hold such counts.
package stats

import (
	"math"

	"herald/pkg/message"
)

// MessageState is how one message of a bulk stands. Waiting is an UNKNOWN message that will be sent once more unless an event
// of the provider settles it first.
type MessageState struct {
	Seq     int64
	Status  message.Status
	Reason  message.Reason
	Waiting bool
	Cost    message.Micros
}

// Counts says how many messages of a bulk have each standing, and what the accepted ones cost together.
type Counts struct {
	By   map[StateCode]int64
	Cost message.Micros
}

// Add counts n messages that stand alike.
func (c *Counts) Add(m MessageState, n int64) {
	if c.By == nil {
		c.By = map[StateCode]int64{}
	}
	if s := m.Code(); s != 0 {
		c.By[s] += n
	}
	c.Cost += m.Cost
}

// Released returns how many messages no longer occupy a worker or the queue: the settled and the waiting ones.
func (c Counts) Released() int64 {
	var n int64
	for _, v := range c.By {
		n += v
	}
	return n
}

// Settled returns how many messages have come to an end.
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

// Compute makes the figures for an audience of total leads. Sent counts what a provider accepted, whatever became of
// it later; Failed what ended otherwise; Pending the rest.
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
