package app

import (
	"context"

	"herald/pkg/telemetry"
)

// gauges are the values that this process reads when its metrics are scraped.
func (a *App) gauges() telemetry.Gauges {
	return telemetry.Gauges{
		QueueTasks: a.queueTasks,
		Workers:    a.workers,
	}
}

func (a *App) queueTasks(ctx context.Context) ([]telemetry.Sample, error) {
	depths, err := a.Queue.Depths(ctx)
	var samples []telemetry.Sample
	for queue, states := range depths {
		for state, n := range states {
			samples = append(samples, telemetry.Sample{Labels: []string{queue, state}, Value: float64(n)})
		}
	}
	return samples, err
}

func (a *App) workers(ctx context.Context) ([]telemetry.Sample, error) {
	n, err := a.Queue.Workers(ctx)
	return []telemetry.Sample{{Value: float64(n)}}, err
}
