package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"herald/pkg/provider/simulator"
)

type simulatorCmd struct {
	Listen  string        `default:"127.0.0.1:8090" help:"Address of the simulator."`
	Latency time.Duration `help:"Response time."`
}

// Run serves the simulator until a signal arrives. It prints the address that it has bound, so port 0 is possible.
func (s *simulatorCmd) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", s.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s: another program uses this address: pass another one as --listen", s.Listen)
	}
	if err != nil {
		return err
	}
	sim := simulator.New()
	sim.SetLatency(s.Latency)
	fmt.Printf("simulator listens on http://%s\n", l.Addr())
	go func() {
		<-ctx.Done()
		sim.Close()
	}()
	return sim.Serve(l)
}
