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
		if !h.waitForSlot() || time.Since(began) != time.Second {
			t.Errorf("waited %s for tasks that do not arrive, want 1s", time.Since(began))
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

// A task that no prefetcher took has no reservation to use up.
func TestATaskWithoutReservation(t *testing.T) {
	h := NewInFlightLimiter(2)
	h.start()
	h.reserve()
	if h.inUse != 1 || h.reserved != 1 {
		t.Errorf("%d in use, %d reserved", h.inUse, h.reserved)
	}
}

// Without peeks, the wait after a round of empty polls is random: 200 ms, give or take a half. It also drops reservations whose
// tasks were lost.
func TestTheWaitAfterARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrefetcher(nil, Options{Enabled: true, Prefetch: 2, Queues: 1, InFlight: NewInFlightLimiter(2)})
		p.buffers["a:"] = &buffer{}
		waits := map[time.Duration]bool{}
		for range 50 {
			p.falseWakeup = true // no peek in this round
			p.opts.InFlight.reserve()
			began := time.Now()
			p.emptyPoll(t.Context())
			wait := time.Since(began)
			if wait < 100*time.Millisecond || wait >= 300*time.Millisecond {
				t.Errorf("waited %v", wait)
			}
			waits[wait] = true
			if p.opts.InFlight.reserved != 0 {
				t.Fatal("the reservation of a lost task is kept")
			}
		}
		if len(waits) < 25 {
			t.Errorf("%d different waits of 50", len(waits))
		}
	})
}
