// Package queue is Asynq: the tasks that ask a worker to look at one message, the servers that take them, the janitor that
// repairs what Asynq leaves in Redis, and the presence of workers. A task carries an id only, so no personal data gets here.
// Redis may lose everything at any moment: the rows in the database say what is still to be done, and the bulks' runners and
// the sweep enqueue it again.
//
// The package must not know how a message is sent, limited or counted: see delivery, ratelimit and counters. The hooks that
// make Asynq faster are in asynqfast, the names of Asynq's keys in asynqredis.
package queue

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
)

// Kinds of tasks.
const (
	TaskDeliver = "deliver" // deliver one message
	TaskWake    = "wake"    // run a bulk that waits
)

// Control is the queue of tasks that send nothing.
const Control = "control"

// lane is one of the queues of a channel type. Singles have their own, so that no single waits behind a bulk.
type lane string

const (
	laneSingle lane = "single"
	laneHigh   lane = "high"
	laneNormal lane = "normal"
	laneLow    lane = "low"
)

// weights are how often a lane is polled first among the lanes of a channel type. For every task Asynq shuffles a list with
// each name as often as its weight, so they are small.
var weights = map[lane]int{laneSingle: 6, laneHigh: 3, laneNormal: 2, laneLow: 1}

func laneOf(p message.Priority) lane {
	switch p {
	case message.High:
		return laneHigh
	case message.Low:
		return laneLow
	case message.Normal:
	}
	return laneNormal
}

func queueName(t message.ChannelType, l lane) string {
	return strings.ToLower(string(t)) + "." + string(l)
}

// QueuesOf returns the queues of a channel type with their weights.
func QueuesOf(t message.ChannelType) map[string]int {
	q := make(map[string]int, len(weights))
	for l, w := range weights {
		q[queueName(t, l)] = w
	}
	return q
}

// Names returns the names of all queues.
func Names() []string {
	names := append(make([]string, 0, 1+len(weights)*len(message.ChannelTypes)), Control)
	for _, t := range message.ChannelTypes {
		for _, l := range []lane{laneSingle, laneHigh, laneNormal, laneLow} {
			names = append(names, queueName(t, l))
		}
	}
	return names
}

const (
	// maxRetry is more than any task reaches. The message's row counts attempts; a task without retries left would be archived,
	// and an archived task blocks its id.
	maxRetry    = 1_000
	taskTimeout = 60 * time.Second
	enqueuers   = 256 // tasks that are enqueued concurrently: they share pipelines
)

// ParsePayload returns the id in a task's payload, which is its text and nothing else.
func ParsePayload(b []byte) (uuid.UUID, error) {
	id, err := uuid.ParseBytes(b)
	switch {
	case err != nil:
		return uuid.Nil, fmt.Errorf("task payload: %w", err)
	case id == uuid.Nil:
		return uuid.Nil, errors.New("task payload: no id")
	}
	return id, nil
}
