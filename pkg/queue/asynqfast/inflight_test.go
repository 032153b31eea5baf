package asynqfast

import (
	"testing"
	"testing/synctest"
	"time"
)

// What was given out and never comes to a handler takes no place for good.
func TestATaskThatDoesNotComeLosesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const room = 2
		h := NewInFlightLimiter(room)
		for range room {
			if !h.waitForSlot() {
				t.Fatal("there is no room")
			}
			h.reserve()
		}
		began := time.Now()
		if !h.waitForSlot() || time.Since(began) != maxTransit {
			t.Errorf("waited %s for tasks that do not come, want %s", time.Since(began), maxTransit)
		}
		h.reserve()
		h.start()
		h.reserve() // this one does not come either, while the other is in hand
		h.dropReserved()
		if h.inUse != 1 || h.reserved != 1 {
			t.Errorf("%d in hand, %d coming: nobody knows yet that it does not", h.inUse, h.reserved)
		}
		h.add(-1)
		h.dropReserved()
		if h.inUse != 0 || h.reserved != 0 {
			t.Errorf("%d in hand, %d coming, after all are done", h.inUse, h.reserved)
		}
	})
}
