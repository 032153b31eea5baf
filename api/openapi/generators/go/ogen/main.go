// The client of ogen: it sends a single and a bulk, and reads a refusal.
package main

import (
	"context"

	"github.com/go-faster/jx"

	"generators/check"
	"generators/ogen/herald"
)

// apiKey implements herald.SecuritySource.
type apiKey string

func (k apiKey) ApiKey(context.Context, herald.OperationName) (herald.ApiKey, error) {
	return herald.ApiKey{Token: string(k)}, nil
}

func main() {
	ctx := context.Background()
	c := check.Must(herald.NewClient(check.URL(), apiKey(check.Key())))
	single(ctx, c)
	bulk(ctx, c)
	refusal(ctx, c)
}

func send(ctx context.Context, c *herald.Client, r herald.SendRequest, p herald.SendMessageParams) herald.SendResponseOrBulkOrPreview {
	a := check.Must(c.SendMessage(ctx, &r, p))
	sent, ok := a.(*herald.SendResponseOrBulkOrPreviewHeaders)
	check.That(ok, a)
	return sent.Response
}

func single(ctx context.Context, c *herald.Client) {
	a := send(ctx, c, herald.SendRequest{
		MessageData: herald.MessageData{
			Recipient: herald.NewOptNilString("customer@example.com"), Subject: herald.NewOptNilString("Hello"), Content: herald.NewOptNilString("Hi"),
			Metadata: herald.NewOptNilMessageDataMetadata(herald.MessageDataMetadata{"order": jx.Raw("17")}),
		},
		MessageType: herald.NewOptNilMessageType(herald.MessageTypeTRANSACTIONAL), Priority: herald.NewOptNilSendPriority(herald.SendPriorityHIGH),
	}, herald.SendMessageParams{IdempotencyKey: herald.NewOptString("ogen-17")})
	check.That(a.IsSendResponse() && a.SendResponse.Status == herald.MessageStatusSENT && a.SendResponse.Cost > 0, a)
}

func bulk(ctx context.Context, c *herald.Client) {
	names := herald.NewFilterScalarArrayFilterValue([]herald.FilterScalar{herald.NewStringFilterScalar("Example")})
	a := send(ctx, c, herald.SendRequest{
		SenderType:  herald.NewOptNilChannelType(herald.ChannelTypeEMAIL),
		MessageData: herald.MessageData{Subject: herald.NewOptNilString("Hello {{ first_name }}"), Content: herald.NewOptNilString("Hi")},
		BulkSettings: herald.NewOptNilBulkSettings(herald.BulkSettings{
			Filters: herald.NewOptNilFilterRequest(herald.FilterRequest{Conditions: []herald.FilterNode{{
				Logic: herald.NewOptNilLogic(herald.LogicOR), Conditions: []herald.FilterNode{{
					Field: herald.NewOptString("last_name"), Operator: herald.NewOptFilterOperator(herald.FilterOperatorIn), Value: herald.NewOptNilFilterValue(names),
				}},
			}}}),
		}),
	}, herald.SendMessageParams{Prefer: herald.NewOptString("respond-async")})
	check.That(a.IsBulk(), a)
	done := check.Until(
		func() herald.Bulk {
			read := check.Must(c.GetBulk(ctx, herald.GetBulkParams{ID: a.Bulk.BulkID}))
			b, ok := read.(*herald.BulkHeaders)
			check.That(ok, read)
			return b.Response
		},
		func(b herald.Bulk) bool { return b.Status == herald.BulkStatusCOMPLETED },
	)
	check.That(done.TotalLeads > 0 && done.MessagesSent == done.TotalLeads, done)
}

func refusal(ctx context.Context, c *herald.Client) {
	a := check.Must(c.SendMessage(ctx, &herald.SendRequest{
		MessageData: herald.MessageData{Recipient: herald.NewOptNilString("customer@example.com"), Content: herald.NewOptNilString("Hi")},
	}, herald.SendMessageParams{}))
	refused, ok := a.(*herald.UnprocessableEntityHeaders)
	check.That(ok && len(refused.Response.Detail) == 1, a)
	mistake := refused.Response.Detail[0]
	check.That(mistake.Type == herald.FieldErrorTypeMissing && mistake.Loc[2].String == "subject", mistake)
}
