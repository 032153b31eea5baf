package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"herald/pkg/provider/simulator"
)

type simulatorCmd struct {
	Listen  string        `default:"127.0.0.1:8090" help:"Address of the simulator."`
	Latency time.Duration `help:"How long every answer takes."`
}

// Run serves the simulator until it is told to stop. What it listens on is printed, so a port of 0 can be asked for.
func (s *simulatorCmd) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return err
	}
	sim := simulator.New()
	sim.SetLatency(s.Latency)
	srv := &http.Server{Handler: sim} //nolint:gosec // without time limits: its callers are tests and benchmarks, and each limit is two timers a request
	fmt.Printf("simulator listens on http://%s\n", l.Addr())
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
