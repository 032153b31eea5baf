package ledger

import (
	"slices"
	"testing"

	"github.com/google/uuid"

	"herald/pkg/access"
	"herald/pkg/store"
)

// Two groups write their keys in the same order, so neither waits for the other. Of two singles with one key the first is
// written.
func TestKeysAreWrittenInOneOrder(t *testing.T) {
	under := func(caller string, hash byte) single {
		return single{MessageRow: store.MessageRow{ID: uuid.New()}, key: &access.IdempotencyKey{Caller: caller, Hash: [32]byte{hash}}}
	}
	free := single{MessageRow: store.MessageRow{ID: uuid.New()}}
	a1, a2, b1, again := under("a", 1), under("a", 2), under("b", 1), under("a", 2)
	rows, positions := insertOrder([]single{b1, a2, free, again, a1})
	ids := make([]uuid.UUID, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	if !slices.Equal(ids, []uuid.UUID{free.ID, a1.ID, a2.ID, b1.ID}) {
		t.Errorf("order %v", ids)
	}
	if len(positions) != 4 || positions[b1.ID] != 0 || positions[a2.ID] != 1 || positions[free.ID] != 2 || positions[a1.ID] != 4 {
		t.Errorf("positions %v", positions)
	}
}
