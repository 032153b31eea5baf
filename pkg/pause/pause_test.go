package pause

import (
	"context"
	"testing"
	"time"
)

func TestFor(t *testing.T) {
	if !For(t.Context(), time.Millisecond) {
		t.Error("the time was over, and it says that it was not")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if For(ended, time.Hour) {
		t.Error("the context was over, and it says that the time was")
	}
}
