//go:build faults

package app

import (
	"encoding/json"
	"fmt"
	"os"
)

// timing returns DefaultTiming with the fields that HERALD_TIMING (JSON) names replaced.
func timing() (Timing, error) {
	t := DefaultTiming()
	if v := os.Getenv("HERALD_TIMING"); v != "" {
		if err := json.Unmarshal([]byte(v), &t); err != nil {
			return t, fmt.Errorf("HERALD_TIMING: %w", err)
		}
	}
	return t, nil
}
