package bulk

import (
	"strconv"
	"testing"

	"herald/pkg/message"
)

func plannedTo(from, to int) []PlannedRow {
	rows := make([]PlannedRow, 0, to-from)
	for i := from; i < to; i++ {
		rows = append(rows, PlannedRow{Hash: message.HashAddress(strconv.Itoa(i)), Dedupe: true})
	}
	return rows
}

func count(rows []PlannedRow) (fresh int) {
	for i := range rows {
		if rows[i].FirstSeen {
			fresh++
		}
	}
	return fresh
}

func TestSeenForgetsNoAddress(t *testing.T) {
	const million = 1_000_000
	s := &seen{whole: true}
	if rows := plannedTo(0, 10); len(rows) != 10 {
		t.Fatal("no rows")
	} else if s.mark(rows); count(rows) != 10 {
		t.Errorf("%d of 10 rows of the first page are new", count(rows))
	}
	s.add(plannedTo(0, million))

	again := plannedTo(0, million)
	s.mark(again)
	if n := count(again); n != 0 {
		t.Errorf("%d addresses that were there count as new", n)
	}
	others := plannedTo(million, million+100_000)
	s.mark(others)
	if n := count(others); n < 99_000 {
		t.Errorf("only %d of 100,000 new addresses are seen to be new", n)
	} else {
		t.Logf("after a million addresses %d of 100,000 others are in doubt", 100_000-n)
	}
}

func TestSeenSaysNothingOfWhatOthersPlanned(t *testing.T) {
	s := &seen{}
	s.add(plannedTo(0, 10))
	rows := plannedTo(10, 20)
	s.mark(rows)
	if count(rows) != 0 || s.lines != nil {
		t.Errorf("%d rows are new, where nobody can know", count(rows))
	}
}

func TestSeenIgnoresRowsThatMayRepeat(t *testing.T) {
	s := &seen{whole: true}
	rows := plannedTo(0, 10)
	for i := range rows {
		rows[i].Dedupe = false
	}
	s.add(rows)
	s.mark(rows)
	if count(rows) != 0 {
		t.Error("a row that may repeat an address is said to be new")
	}
	want := plannedTo(0, 10)
	s.mark(want)
	if count(want) != 10 {
		t.Errorf("%d of 10 addresses that no sole row has are new", count(want))
	}
}
