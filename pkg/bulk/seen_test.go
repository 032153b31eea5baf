package bulk

import (
	"encoding/binary"
	"testing"

	"herald/pkg/message"
)

// addresses makes planned rows with the hashes of the addresses from one number to another, spread like SHA-256 sums.
func addresses(from, to int) []PlannedRow {
	rows := make([]PlannedRow, 0, to-from)
	for i := from; i < to; i++ {
		x := uint64(i)
		var h message.Hash
		binary.LittleEndian.PutUint64(h[:8], scramble(x))
		binary.LittleEndian.PutUint64(h[8:], scramble(^x))
		rows = append(rows, PlannedRow{Hash: h, Dedupe: true})
	}
	return rows
}

// scramble is the finalizer of SplitMix64: close numbers get values without a relation.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func firstSeen(rows []PlannedRow) (n int) {
	for i := range rows {
		if rows[i].FirstSeen {
			n++
		}
	}
	return n
}

// No address is forgotten, and few new ones are taken for seen: more would cost look-ups, fewer would need more memory.
func TestSeenAddresses(t *testing.T) {
	t.Parallel()
	const million = 1_000_000
	s := &seenAddresses{complete: true}
	if rows := addresses(0, 10); s.filter != nil {
		t.Error("the filter is allocated before the second page")
	} else if s.mark(rows); firstSeen(rows) != 10 {
		t.Errorf("%d of 10 addresses of the first page are new", firstSeen(rows))
	}
	seen := addresses(0, million)
	s.add(seen)
	s.mark(seen)
	if n := firstSeen(seen); n != 0 {
		t.Errorf("%d of a million seen addresses count as new", n)
	}
	others := addresses(million, million+100_000)
	s.mark(others)
	if n := 100_000 - firstSeen(others); n < 150 || n > 260 {
		t.Errorf("%d of 100,000 new addresses count as seen, want about 200", n)
	}
	if bytes := s.filter.Cap() / 8; bytes != 2<<20 {
		t.Errorf("the filter has %d bytes, want 2 MiB", bytes)
	}
}

// A process that continues another's plan does not know the addresses of the earlier pages, so it needs no filter.
func TestSeenAddressesOfAnIncompletePlan(t *testing.T) {
	t.Parallel()
	s := &seenAddresses{}
	s.add(addresses(0, 10))
	rows := addresses(10, 20)
	s.mark(rows)
	if firstSeen(rows) != 0 || s.filter != nil {
		t.Errorf("%d addresses are new, filter %v", firstSeen(rows), s.filter)
	}
}

// Rows that may repeat an address, and rows that are skipped, neither are new nor make others seen.
func TestSeenAddressesIgnoreRowsWithoutDedupe(t *testing.T) {
	t.Parallel()
	s := &seenAddresses{complete: true}
	rows := addresses(0, 10)
	for i := range rows {
		rows[i].Dedupe = false
	}
	s.add(rows)
	if s.mark(rows); firstSeen(rows) != 0 {
		t.Errorf("%d rows without Dedupe are new", firstSeen(rows))
	}
	unique := addresses(0, 10)
	if s.mark(unique); firstSeen(unique) != 10 {
		t.Errorf("%d of 10 addresses that only rows without Dedupe have are new", firstSeen(unique))
	}
}

// BenchmarkSeenAddresses is the filter's part in planning a page of 1,000 leads.
func BenchmarkSeenAddresses(b *testing.B) {
	s := &seenAddresses{complete: true}
	s.add(addresses(0, 100_000))
	page := addresses(100_000, 101_000)
	b.ReportAllocs()
	for b.Loop() {
		s.mark(page)
		s.add(page)
	}
}
