package counters

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/redisconn/redistest"
	"herald/pkg/stats"
	"herald/pkg/testenv"
)

func BenchmarkCount(b *testing.B) {
	c := New(redistest.Connect(b, testenv.Redis(b, testenv.RedisServer)), nil)
	defer c.Close()
	ctx, id := context.Background(), uuid.New()
	if err := c.BeginRebuild(ctx, id); err != nil {
		b.Fatal(err)
	}
	if err := c.EndRebuild(ctx, id); err != nil {
		b.Fatal(err)
	}
	marks := make([]stats.MessageState, b.N)
	for i := range marks {
		marks[i] = stats.MessageState{Seq: int64(i), Status: message.Sent, Cost: 1000}
	}
	b.ResetTimer()
	began := time.Now()
	if err := c.CountAll(ctx, id, marks); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "messages/s")
}
