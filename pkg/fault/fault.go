// Package fault names points in the code at which the fault tests kill or freeze a process. Without the build tag faults,
// Point is an empty function. ARCHITECTURE.md lists the failures; pkg/app TestFailureMatrix uses the points.
package fault

// The points, in the order of a bulk's life.
const (
	BulkInserting    = "bulk.inserting"    // a bulk is about to be written
	BulkInserted     = "bulk.inserted"     // the row is committed and not answered
	PagePlanned      = "bulk.page_planned" // a page of the plan is committed
	PageWalked       = "bulk.page_walked"  // a page is read and its tasks are not enqueued
	PageEnqueued     = "bulk.page_enqueued"
	MessageLoaded    = "delivery.loaded" // before the claim
	MessageRendering = "delivery.rendering"
	MessageClaimed   = "delivery.claimed"  // before any byte leaves
	ProviderAnswered = "delivery.answered" // the outcome is known to this process only
	MessageSettled   = "delivery.settled"  // the outcome is recorded and not counted
	MessageCounted   = "delivery.counted"  // the outcome is counted and the task not acknowledged
)
