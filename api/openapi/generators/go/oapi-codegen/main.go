// The client of oapi-codegen: it sends a single and a bulk, and reads a refusal.
package main

import (
	"context"
	"net/http"

	"generators/check"
	"generators/oapi-codegen/herald"
)

func main() {
	ctx := context.Background()
	c := check.Must(herald.NewClientWithResponses(check.URL(), herald.WithRequestEditorFn(authenticate)))
	single(ctx, c)
	bulk(ctx, c)
	refusal(ctx, c)
}

func authenticate(_ context.Context, r *http.Request) error {
	r.Header.Set("Authorization", "Bearer "+check.Key())
	return nil
}

func to[T any](v T) *T { return &v }

func single(ctx context.Context, c *herald.ClientWithResponses) {
	a := check.Must(c.SendMessageWithResponse(ctx, &herald.SendMessageParams{IdempotencyKey: to("oapi-codegen-17")}, herald.SendRequest{
		MessageData: herald.MessageData{
			Recipient: to("customer@example.com"), Subject: to("Hello"), Content: to("Hi"), Metadata: &map[string]any{"order": 17},
		},
		MessageType: to(herald.TRANSACTIONAL), Priority: to(herald.SendPriorityHIGH),
	}))
	check.That(a.JSON200 != nil, string(a.Body))
	sent := check.Must(a.JSON200.AsSendResponse())
	check.That(sent.Status == herald.MessageStatusSENT && sent.Cost > 0, sent)
}

func bulk(ctx context.Context, c *herald.ClientWithResponses) {
	var scalar herald.FilterScalar
	check.That(scalar.FromFilterScalar0("Example") == nil, scalar)
	var value herald.FilterValue
	check.That(value.FromFilterValue3([]herald.FilterScalar{scalar}) == nil, value)
	a := check.Must(c.SendMessageWithResponse(ctx, &herald.SendMessageParams{Prefer: to("respond-async")}, herald.SendRequest{
		SenderType:  to(herald.EMAIL),
		MessageData: herald.MessageData{Subject: to("Hello {{ first_name }}"), Content: to("Hi")},
		BulkSettings: &herald.BulkSettings{Filters: &herald.FilterRequest{Conditions: []herald.FilterNode{{
			Logic: to(herald.OR), Conditions: &[]herald.FilterNode{{Field: to("last_name"), Operator: to(herald.In), Value: &value}},
		}}}},
	}))
	check.That(a.JSON200 != nil, string(a.Body))
	accepted := check.Must(a.JSON200.AsBulk())
	done := check.Until(
		func() *herald.Bulk { return check.Must(c.GetBulkWithResponse(ctx, accepted.BulkId)).JSON200 },
		func(b *herald.Bulk) bool { return b != nil && b.Status == herald.BulkStatusCOMPLETED },
	)
	check.That(done.TotalLeads > 0 && done.MessagesSent == done.TotalLeads, done)
}

func refusal(ctx context.Context, c *herald.ClientWithResponses) {
	a := check.Must(c.SendMessageWithResponse(ctx, nil, herald.SendRequest{
		MessageData: herald.MessageData{Recipient: to("customer@example.com"), Content: to("Hi")},
	}))
	check.That(a.JSON422 != nil && len(a.JSON422.Detail) == 1, string(a.Body))
	mistake := a.JSON422.Detail[0]
	check.That(mistake.Type == herald.Missing, mistake)
	place := check.Must(mistake.Loc[2].AsFieldErrorLoc0())
	check.That(place == "subject", mistake)
}
