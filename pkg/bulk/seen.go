package bulk

import "github.com/bits-and-blooms/bloom/v3"

// Size of the filter: 2 MiB and 4 bits per address. After a million different addresses 2 of 1,000 new ones count as seen,
// after four million 15 of 100; each of these costs one more look-up in the ledger.
const (
	seenBits   = 1 << 24
	seenHashes = 4
)

// seenAddresses remembers the addresses on the earlier pages of a plan in a Bloom filter of a fixed size. It never takes a
// seen address for a new one, so rows that it calls new need no look-up for duplicates in the ledger. The zero value says of
// no address that it is new.
type seenAddresses struct {
	complete bool // this process planned every page from the first on
	filter   *bloom.BloomFilter
}

// mark sets FirstSeen of a page's rows. A filter that does not know of every earlier page cannot call an address new.
func (s *seenAddresses) mark(rows []PlannedRow) {
	for i := range rows {
		r := &rows[i]
		r.FirstSeen = s.complete && r.Dedupe && (s.filter == nil || !s.filter.Test(r.Hash[:]))
	}
}

// add remembers the addresses of a page that was written. The filter is allocated with the second page: most bulks have one.
func (s *seenAddresses) add(rows []PlannedRow) {
	if !s.complete {
		return
	}
	if s.filter == nil {
		s.filter = bloom.New(seenBits, seenHashes)
	}
	for i := range rows {
		if rows[i].Dedupe {
			s.filter.Add(rows[i].Hash[:])
		}
	}
}
