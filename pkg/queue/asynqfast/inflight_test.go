package asynqfast

import (
	"testing"
	"testing/synctest"
	"time"
)

// A reservation whose task never reaches its handler expires.
func TestReservationsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const room = 2
		h := NewInFlightLimiter(room)
		for range room {
			if !h.waitForSlot() {
				t.Fatal("no slot is free")
			}
			h.reserve()
		}
		began := time.Now()
		if !h.waitForSlot() || time.Since(began) != maxTransit {
			t.Errorf("waited %s for tasks that do not come, want %s", time.Since(began), maxTransit)
		}
		h.reserve()
		h.start()
		h.reserve() // this task is lost too, while the other one runs
		h.dropReserved()
		if h.inUse != 1 || h.reserved != 1 {
			t.Errorf("%d in use, %d reserved: the reserved task may still arrive", h.inUse, h.reserved)
		}
		h.add(-1)
		h.dropReserved()
		if h.inUse != 0 || h.reserved != 0 {
			t.Errorf("%d in use, %d reserved after all tasks ended", h.inUse, h.reserved)
		}
	})
}
