// Package fault names the points of the code at which the fault tests make a process die or freeze. In every build but
// theirs (the build tag faults) a point is nothing at all.
package fault

// The points.
const (
	BulkInserting    = "bulk.inserting"    // a bulk is about to be written
	BulkInserted     = "bulk.inserted"     // it is written, its caller has no answer yet
	PagePlanned      = "bulk.page_planned" // a page of the plan is written
	PageWalked       = "bulk.page_walked"  // a page is read, its tasks are not enqueued yet
	PageEnqueued     = "bulk.page_enqueued"
	MessageLoaded    = "delivery.loaded" // before the claim
	MessageRendering = "delivery.rendering"
	MessageClaimed   = "delivery.claimed"  // before any byte leaves
	ProviderAnswered = "delivery.answered" // the outcome is known here only
	MessageSettled   = "delivery.settled"  // the outcome is in the ledger and not counted
	MessageCounted   = "delivery.counted"  // the task is not acknowledged
)
