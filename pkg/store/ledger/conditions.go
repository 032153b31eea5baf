package ledger

// The conditions on rows under which a message may be sent now, in one place for both databases and every statement: m is the
// message, b its bulk, c its channel. The conditions on time (the channel's rate) are delivery.Decide and delivery.Limiter; a
// message that has to wait for one of them must not be claimed when it is loaded, so sendableSQL names them too.
const (
	// suppressedSQL returns the reasons why the recipient of m must not be contacted; no row if it may.
	suppressedSQL = `
    SELECT s.reason FROM suppressions s WHERE s.type = m.channel_type AND s.address_hash = m.address_hash AND
        CASE m.message_type WHEN 'MARKETING' THEN s.marketing WHEN 'NOTIFICATION' THEN s.notification ELSE s.transactional END`

	// heldSQL is whether m waits until its bulk or its channel is resumed. b and c may be NULL: a single has no bulk, and a
	// message whose channel was deleted is not held but ends.
	heldSQL = `(COALESCE(b.status <> 'PROCESSING', false) OR COALESCE(c.state = 'PAUSED', false))`

	// sendableSQL is whether nothing forbids or delays m, which is of a bulk and waits.
	sendableSQL = `(m.suspect = 0 AND b.status = 'PROCESSING' AND c.state = 'ACTIVE' AND c.rate_per_second = 0
            AND NOT EXISTS (` + suppressedSQL + `))`
)
