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

// The kinds of task.
const (
	TaskDeliver = "deliver" // look at one message
	TaskWake    = "wake"    // a bulk waits to be run
)

// Control is the queue of tasks that steer and send nothing.
const Control = "control"

// lane is one of the queues of a type. Singles have their own, so that none waits behind a bulk.
type lane string

const (
	laneSingle lane = "single"
	laneHigh   lane = "high"
	laneNormal lane = "normal"
	laneLow    lane = "low"
)

// weights says how often a lane is looked at first, among the lanes of a type.
// Asynq shuffles as many names as the weights are together for every task, so they are small.
var weights = map[lane]int{laneSingle: 6, laneHigh: 3, laneNormal: 2, laneLow: 1}

func laneOf(p message.Priority) lane {
	switch p {
	case message.High:
		return laneHigh
	case message.Low:
		return laneLow
	default:
		return laneNormal
	}
}

func queueName(t message.ChannelType, l lane) string {
	return strings.ToLower(string(t)) + "." + string(l)
}

// QueuesOf returns the queues of a type with their weights.
func QueuesOf(t message.ChannelType) map[string]int {
	q := make(map[string]int, len(weights))
	for l, w := range weights {
		q[queueName(t, l)] = w
	}
	return q
}

// Names returns every queue.
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
	// maxRetry is beyond what any task reaches: attempts are counted in the message's row, and a task that ran out of
	// retries would be archived, which blocks its id.
	maxRetry    = 1_000
	taskTimeout = 60 * time.Second
	enqueuers   = 256 // tasks that are enqueued at once: they share pipelines, or at least connections
)

// ParsePayload returns the id that is all that a task carries, as text.
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
