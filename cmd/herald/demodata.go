package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"herald/pkg/app"
	"herald/pkg/channel"
	"herald/pkg/message"
	"herald/pkg/seal"
)

// The demo data is the same at each start, and contains all channels and leads that the examples of the documentation name.
var (
	exampleChannel = uuid.MustParse("825b8057-c85f-44a9-9e9f-6e7d7389ecfc")
	emailChannel   = uuid.MustParse("0190a000-0000-7000-8000-000000000001")
	leadSpace      = uuid.MustParse("0190a000-0000-7000-8000-0000000000ff")
)

// exampleLeads are the leads that the examples name; the others are generated from their number.
var exampleLeads = []message.Lead{
	{
		ID: uuid.MustParse("550e8400-e29b-41d4-a716-446655440001"), FirstName: "Stella", LastName: "Example", Email: "stella@example.com",
		Phone: "+15005551001", InstagramID: "17841400000000001", Company: "Enterprise Customers Ltd", Tags: []string{"Import 10/05/25"}, AssigneeID: "user-uuid-1",
	},
	{
		ID: uuid.MustParse("550e8400-e29b-41d4-a716-446655440002"), FirstName: "Augustin", LastName: "Example", Email: "augustin@example.com",
		Phone: "+15005551002", InstagramID: "17841400000000002", Company: "Enterprise Customers Ltd", Tags: []string{"Import 10/05/25", "vip"}, AssigneeID: "user-uuid-2",
	},
	{
		ID: uuid.MustParse("550e8400-e29b-41d4-a716-446655440003"), FirstName: "Kim", LastName: "Example", Email: "kim@example.com",
		Phone: "+15005551003", InstagramID: "17841400000000003", AssigneeID: "user-uuid-2",
	},
	{
		ID: uuid.MustParse("11111111-0001-0001-0001-000000000001"), FirstName: "Contact", LastName: "Example", Email: "contact@example.com",
		Phone: "+15005551004", InstagramID: "1234567890123456",
	},
}

// Intervals of demo leads that cannot be reached, so that the figures of the demo contain each reason of failure. They are
// primes, so that the cases rarely coincide.
const (
	everyMissing = 97  // no address
	everyInvalid = 101 // an invalid address
	everyRefused = 103 // refused by the simulator
	everyTwice   = 107 // the address of another lead
)

func leadID(i int) uuid.UUID {
	if i < len(exampleLeads) {
		return exampleLeads[i].ID
	}
	return uuid.NewSHA1(leadSpace, fmt.Appendf(nil, "lead %d", i))
}

func demoLead(i int) message.Lead {
	if i < len(exampleLeads) {
		return exampleLeads[i]
	}
	l := message.Lead{
		ID: leadID(i), FirstName: fmt.Sprintf("Lead%d", i), LastName: "Demo", Email: fmt.Sprintf("lead%d@example.com", i),
		Phone: fmt.Sprintf("+1500556%04d", i%10000), InstagramID: fmt.Sprintf("178414%011d", i), Company: fmt.Sprintf("Company %d", i%20),
		City: []string{"Oslo", "Lima", "Kyoto"}[i%3], Tags: []string{fmt.Sprintf("group %d", i%5)}, AssigneeID: fmt.Sprintf("user-uuid-%d", i%4+1),
		CustomFields: map[string]any{"plan": []string{"free", "pro"}[i%2], "score": i % 100},
	}
	switch {
	case i%everyMissing == 0:
		l.Email = ""
	case i%everyInvalid == 0:
		l.Email = "not an address"
	case i%everyRefused == 0:
		l.Email = fmt.Sprintf("refused+%d@simulator.test", i)
	case i%everyTwice == 0:
		l.Email = "lead1@example.com"
	}
	return l
}

const seedBatch = 1_000

// seed stores the channels and the leads of the demo.
func seed(ctx context.Context, a *app.App, leads int) error {
	for _, c := range demoChannels() {
		if err := a.Channels.Create(ctx, &c); err != nil {
			return fmt.Errorf("demo channel: %w", err)
		}
	}
	began := time.Date(2025, 1, 31, 10, 30, 0, 0, time.UTC)
	for from := 0; from < leads; from += seedBatch {
		batch := make([]message.Lead, 0, seedBatch)
		for i := from; i < min(from+seedBatch, leads); i++ {
			l := demoLead(i)
			l.CreatedAt, l.UpdatedAt = began.Add(time.Duration(i)*time.Minute), began.Add(time.Duration(i)*time.Minute)
			batch = append(batch, l)
		}
		if err := a.Stores.Leads.InsertLeads(ctx, batch); err != nil {
			return fmt.Errorf("demo leads: %w", err)
		}
	}
	return nil
}

func demoChannels() []channel.Channel {
	secret := seal.NewSecret
	return []channel.Channel{
		{
			Key: channel.Key{ID: emailChannel, Type: message.Email}, Name: "Demo mail", Sender: "news@acme.test", SenderName: "Acme",
			AllowedSenders: []string{"*@acme.test"}, Price: message.MicrosOf(0.001), Default: true,
			Credentials: map[string]seal.Secret{"api_key": secret("SG.demo-key-of-the-simulator")},
		},
		{
			Key: channel.Key{ID: exampleChannel, Type: message.SMS}, Name: "Demo SMS", Sender: "+15005550006", Price: message.MicrosOf(0.0079),
			PriceMedia: new(message.MicrosOf(0.02)), Default: true, Region: "US",
			Credentials: map[string]seal.Secret{"account_sid": secret("AC00000000000000000000000000000000"), "auth_token": secret("demo-token-of-the-simulator")},
		},
		{
			Key: channel.Key{ID: exampleChannel, Type: message.InstagramDM}, Name: "Demo Instagram", Sender: "17841400000000000", Default: true,
			Credentials: map[string]seal.Secret{"access_token": secret("demo-token-of-the-simulator")},
		},
	}
}
