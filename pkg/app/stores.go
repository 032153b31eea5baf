package app

import (
	"context"

	"herald/pkg/seal"
	"herald/pkg/store"
	"herald/pkg/store/ledger"
	"herald/pkg/store/records"
	"herald/pkg/store/search"
)

// Stores are what one database keeps, one value per aggregate. Each implements the ports of the domain package that owns the
// aggregate.
type Stores struct {
	DB           *store.DB
	Ledger       *ledger.Ledger
	Runs         *ledger.Runs
	Audiences    *search.Resolver
	Bulks        *records.BulkStore
	Channels     *records.ChannelStore
	Idempotency  *records.IdempotencyStore
	Keys         *records.KeyStore
	Leads        *records.LeadStore
	Messages     *records.MessageStore
	Previews     *records.PreviewStore
	Suppressions *records.SuppressionStore
}

// OpenStores connects to a database without touching its schema. maxConns bounds the connections to PostgreSQL; 0 stands for a
// default that suits one process.
func OpenStores(ctx context.Context, databaseURL string, maxConns int, sealer *seal.Sealer) (*Stores, error) {
	db, err := store.Open(ctx, databaseURL, store.Options{MaxConns: maxConns})
	if err != nil {
		return nil, err
	}
	return &Stores{
		DB:           db,
		Ledger:       ledger.New(db),
		Runs:         ledger.NewRuns(db),
		Audiences:    search.NewResolver(db, 0),
		Bulks:        records.NewBulkStore(db),
		Channels:     records.NewChannelStore(db, sealer),
		Idempotency:  records.NewIdempotencyStore(db),
		Keys:         records.NewKeyStore(db),
		Leads:        records.NewLeadStore(db),
		Messages:     records.NewMessageStore(db),
		Previews:     records.NewPreviewStore(db),
		Suppressions: records.NewSuppressionStore(db),
	}, nil
}

// Close closes the ledger and then the connections.
func (s *Stores) Close() {
	s.Ledger.Close()
	s.DB.Close()
}
