package bulk

import (
	"encoding/binary"

	"herald/pkg/message"
)

// seen remembers which addresses the pages of a plan had, as a Bloom filter of a fixed size: it may say of an address that
// it was there when it was not, never the reverse. So next to none are looked for in the ledger: of a million different
// addresses two in a thousand, of four million one in six.
type seen struct {
	whole bool // it knows of every page: this process planned them all
	lines []seenLine
}

// seenLine has all bits of an address, in one line of the processor's cache.
type seenLine [8]uint64

const (
	seenLines = 1 << 15 // 2 MiB
	lineBits  = 8 * 64
)

// mark says of the rows of a page which are new.
func (s *seen) mark(rows []PlannedRow) {
	for i := range rows {
		rows[i].FirstSeen = s.whole && rows[i].Dedupe && !s.has(rows[i].Hash)
	}
}

// add remembers a page that was written.
func (s *seen) add(rows []PlannedRow) {
	if !s.whole {
		return
	}
	if s.lines == nil {
		s.lines = make([]seenLine, seenLines)
	}
	for i := range rows {
		if rows[i].Dedupe {
			line, bits := s.bits(rows[i].Hash)
			for _, b := range bits {
				line[b/64] |= 1 << (b % 64)
			}
		}
	}
}

func (s *seen) has(h message.Hash) bool {
	if s.lines == nil {
		return false
	}
	line, bits := s.bits(h)
	for _, b := range bits {
		if line[b/64]&(1<<(b%64)) == 0 {
			return false
		}
	}
	return true
}

// bits are where an address is: a hash is as good as random, so its own bytes say it.
func (s *seen) bits(h message.Hash) (*seenLine, [4]uint16) {
	var bits [4]uint16
	for i := range bits {
		bits[i] = binary.LittleEndian.Uint16(h[4+2*i:]) % lineBits
	}
	return &s.lines[binary.LittleEndian.Uint32(h[:])%seenLines], bits
}
