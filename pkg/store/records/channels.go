package records

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"herald/pkg/channel"
	"herald/pkg/event"
	"herald/pkg/message"
	"herald/pkg/seal"
	"herald/pkg/store"
)

// ChannelStore implements channel.Store, channel.Editor and channel.DefaultStore. Credentials are sealed in the database. It is
// safe for concurrent use.
type ChannelStore struct {
	db     *store.DB
	sealer *seal.Sealer
}

// NewChannelStore returns the channels of a database. With a nil sealer channels can be neither read nor written.
func NewChannelStore(db *store.DB, sealer *seal.Sealer) *ChannelStore {
	return &ChannelStore{db, sealer}
}

// channelRow is a row of channels. Credentials holds sealed values only.
type channelRow struct {
	ID               uuid.UUID `gorm:"primaryKey"`
	Type             string    `gorm:"primaryKey"`
	Provider         string
	Name             string
	Sender           string
	SenderName       string
	AllowedSenders   store.Document
	Credentials      store.Document
	PriceMicros      int64
	PriceMediaMicros int64
	HasPriceMedia    bool
	Currency         string
	RatePerSecond    float64
	IsDefault        bool
	OnUnknown        string
	BaseURL          string `gorm:"column:base_url"`
	Region           string
	State            string
	StateReason      string
	Version          int64
	CreatedAt        time.Time
	UpdatedAt        time.Time `gorm:"autoUpdateTime:false"`
}

// TableName implements gorm's Tabler.
func (channelRow) TableName() string { return "channels" }

// priceMedia returns the price of messages with media. An earlier version wrote no has_price_media; its 0 meant none.
func (r *channelRow) priceMedia() *message.Micros {
	if !r.HasPriceMedia && r.PriceMediaMicros == 0 {
		return nil
	}
	price := message.Micros(r.PriceMediaMicros)
	return &price
}

func valueOf(price *message.Micros) message.Micros {
	if price == nil {
		return 0
	}
	return *price
}

var errNoSealer = errors.New("read or write a channel: no master key")

// sealContext binds a credential to its channel and field.
func sealContext(k channel.Key, field string) string {
	return "channel/" + k.ID.String() + "/" + string(k.Type) + "/" + field
}

// rowOfChannel seals the credentials. Each sealing has a random nonce, so equal credentials differ when sealed.
func (s *ChannelStore) rowOfChannel(c *channel.Channel) (*channelRow, error) {
	if s.sealer == nil {
		return nil, errNoSealer
	}
	sealed := make(map[string]string, len(c.Credentials))
	for field, secret := range c.Credentials {
		v, err := s.sealer.Seal(secret, sealContext(c.Key, field))
		if err != nil {
			return nil, err
		}
		sealed[field] = v
	}
	allowed := c.AllowedSenders
	if allowed == nil {
		allowed = []string{}
	}
	return &channelRow{
		ID: c.ID, Type: string(c.Type), Provider: c.Provider, Name: c.Name, Sender: c.Sender, SenderName: c.SenderName,
		AllowedSenders: store.Encode(allowed), Credentials: store.Encode(sealed), PriceMicros: int64(c.Price),
		PriceMediaMicros: int64(valueOf(c.PriceMedia)), HasPriceMedia: c.PriceMedia != nil,
		Currency: c.Currency, RatePerSecond: c.RatePerSecond, IsDefault: c.Default, OnUnknown: string(c.OnUnknown), BaseURL: c.BaseURL,
		Region: c.Region, State: string(c.State), StateReason: c.StateReason, Version: c.Version, CreatedAt: store.Stamp(c.CreatedAt), UpdatedAt: store.Stamp(c.UpdatedAt),
	}, nil
}

// channelOf opens the credentials. It fails if one is sealed with another key, or was copied from another row or field.
func (s *ChannelStore) channelOf(r *channelRow) (*channel.Channel, error) {
	if s.sealer == nil {
		return nil, errNoSealer
	}
	c := &channel.Channel{
		Key: channel.Key{ID: r.ID, Type: message.ChannelType(r.Type)}, Provider: r.Provider, Name: r.Name, Sender: r.Sender,
		SenderName: r.SenderName, Price: message.Micros(r.PriceMicros), PriceMedia: r.priceMedia(),
		Currency: r.Currency, RatePerSecond: r.RatePerSecond, Default: r.IsDefault, OnUnknown: channel.Policy(r.OnUnknown),
		BaseURL: r.BaseURL, Region: r.Region, State: channel.State(r.State), StateReason: r.StateReason, Version: r.Version,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), Credentials: map[string]seal.Secret{},
	}
	if err := r.AllowedSenders.Decode(&c.AllowedSenders); err != nil {
		return nil, err
	}
	sealed, err := s.sealedOf(r)
	if err != nil {
		return nil, err
	}
	for field, v := range sealed {
		secret, err := s.sealer.Open(v, sealContext(c.Key, field))
		if err != nil {
			return nil, err
		}
		c.Credentials[field] = secret
	}
	return c, nil
}

// InsertChannel implements channel.Store. A channel with the key is a message.Error conflict.
func (s *ChannelStore) InsertChannel(ctx context.Context, c *channel.Channel) error {
	now := store.Stamp(time.Now())
	c.CreatedAt, c.UpdatedAt = now, now
	// The first version is above every version of a deleted channel with this key, so no process uses what it cached for that one.
	c.Version = now.UnixMicro()
	row, err := s.rowOfChannel(c)
	if err != nil {
		return err
	}
	err = store.WrapError("insert the channel", s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if row.IsDefault {
			if err := s.unsetDefault(tx, c.Key); err != nil {
				return err
			}
		}
		return tx.Create(row).Error
	}))
	if message.IsCode(err, message.CodeConflict) {
		return message.Errorf(message.CodeConflict, "a channel with this id and type exists already")
	}
	return err
}

// unsetDefault makes room for the channel that becomes the default of its type. The lock lets two such changes run one after the
// other: without it the second would not see the default that the first commits while it waits for a row.
func (s *ChannelStore) unsetDefault(tx *gorm.DB, k channel.Key) error {
	if s.db.IsPostgres() {
		if err := tx.Exec("SELECT pg_advisory_xact_lock(?)", store.DefaultLock).Error; err != nil {
			return err
		}
	}
	return tx.Exec("UPDATE channels SET is_default = false, version = version + 1, updated_at = ? WHERE type = ? AND is_default AND id <> ?",
		store.Stamp(time.Now()), string(k.Type), k.ID).Error
}

// noChannel returns the error of a missing channel.
func noChannel(k channel.Key) error {
	return message.Errorf(message.CodeNotFound, "channel %s of type %s not found", k.ID, k.Type)
}

// UpdateChannel implements channel.Editor. change runs under the row's lock, and again if the database ends the transaction.
func (s *ChannelStore) UpdateChannel(ctx context.Context, k channel.Key, change func(*channel.Channel) error) (*channel.Channel, error) {
	var c *channel.Channel
	err := s.db.Transact(ctx, "update the channel", func(tx *gorm.DB) error {
		before, err := lockChannel(tx, k, store.LockUpdate)
		if err != nil {
			return err
		}
		if c, err = s.channelOf(before); err != nil {
			return err
		}
		stored := maps.Clone(c.Credentials)
		if err := change(c); err != nil {
			return err
		}
		c.Key, c.CreatedAt, c.UpdatedAt, c.Version = k, before.CreatedAt.UTC(), store.Stamp(time.Now()), before.Version+1
		after, err := s.rowOfChannel(c)
		if err != nil {
			return err
		}
		if after.CreatedAt = before.CreatedAt; maps.Equal(stored, c.Credentials) {
			after.Credentials = before.Credentials // sealed again they would differ
		}
		if after.IsDefault && !before.IsDefault {
			if err := s.unsetDefault(tx, k); err != nil {
				return err
			}
		}
		if err := store.WriteChanged(atChannel(tx, k), before, after); err != nil || before.State == after.State {
			return err
		}
		return s.db.Publish(tx, stateEvent(k, c.State, c.StateReason))
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// stateEvent returns the event of a channel that entered a state.
func stateEvent(k channel.Key, to channel.State, reason string) event.Event {
	if to == channel.Paused {
		return event.ChannelPaused{ChannelID: k.ID, ChannelType: k.Type, Reason: reason}
	}
	return event.ChannelResumed{ChannelID: k.ID, ChannelType: k.Type}
}

// atChannel selects a channel's row.
func atChannel(db *gorm.DB, k channel.Key) *gorm.DB {
	return db.Where("id = ? AND type = ?", k.ID, string(k.Type))
}

// lockChannel locks a channel's row in a transaction and reads it. A missing channel is a message.Error not_found.
func lockChannel(tx *gorm.DB, k channel.Key, lock clause.Locking) (*channelRow, error) {
	var row channelRow
	err := atChannel(tx.Clauses(lock), k).Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, noChannel(k)
	}
	return &row, err
}

// DeleteChannel implements channel.Editor. What is written for a channel holds store.LockReference on it, so under store.LockDelete the
// channel's bulks and messages are those that are committed. They are looked for by statements after the one that waits for
// the lock, since a statement does not see what is committed while it waits.
func (s *ChannelStore) DeleteChannel(ctx context.Context, k channel.Key, conditions ...func(version int64) error) error {
	return s.db.Transact(ctx, "delete the channel", func(tx *gorm.DB) error {
		row, err := lockChannel(tx, k, store.LockDelete)
		if err != nil {
			return err
		}
		for _, met := range conditions {
			if err := met(row.Version); err != nil {
				return err
			}
		}
		var open bool
		err = tx.Raw(`
SELECT EXISTS (SELECT 1 FROM bulks WHERE channel_id = ? AND channel_type = ? AND final IS NULL)
    OR EXISTS (SELECT 1 FROM messages WHERE next_attempt_at IS NOT NULL AND channel_id = ? AND channel_type = ?)`,
			k.ID, string(k.Type), k.ID, string(k.Type)).Scan(&open).Error
		if err != nil {
			return err
		}
		if open {
			return message.Errorf(message.CodeConflict, "delete the channel: bulks or messages over it are open")
		}
		return atChannel(tx, k).Delete(&channelRow{}).Error
	})
}

// Channel implements channel.Store.
func (s *ChannelStore) Channel(ctx context.Context, k channel.Key) (*channel.Channel, error) {
	var row channelRow
	err := atChannel(s.db.WithContext(ctx), k).Take(&row).Error
	if err = store.WrapError("read the channel", err); message.IsCode(err, message.CodeNotFound) {
		return nil, noChannel(k)
	}
	if err != nil {
		return nil, err
	}
	return s.channelOf(&row)
}

// DefaultChannel implements channel.DefaultStore.
func (s *ChannelStore) DefaultChannel(ctx context.Context, t message.ChannelType) (*channel.Channel, error) {
	var row channelRow
	err := s.db.WithContext(ctx).Where("type = ? AND is_default", string(t)).Take(&row).Error
	if err = store.WrapError("read the default channel", err); err != nil {
		return nil, err
	}
	return s.channelOf(&row)
}

// Channels implements channel.Store.
func (s *ChannelStore) Channels(ctx context.Context, after channel.Key, limit int) ([]channel.Channel, error) {
	var rows []channelRow
	q := s.db.WithContext(ctx).Order("id, type").Limit(limit)
	if after.ID != uuid.Nil {
		q = q.Where("(id, type) > (?, ?)", after.ID, string(after.Type))
	}
	if err := q.Find(&rows).Error; err != nil {
		return nil, store.WrapError("list channels", err)
	}
	out := make([]channel.Channel, 0, len(rows))
	for i := range rows {
		c, err := s.channelOf(&rows[i])
		if err != nil {
			return nil, err
		}
		out = append(out, *c)
	}
	return out, nil
}

// Reseal seals the credentials again that are sealed with a former master key, and returns the number of channels changed. The
// write is a compare-and-set on the sealed credentials: a concurrent update of a channel wins, and seals with the present key.
func (s *ChannelStore) Reseal(ctx context.Context) (int, error) {
	if s.sealer == nil {
		return 0, errNoSealer
	}
	var rows []channelRow
	if err := s.db.WithContext(ctx).Find(&rows).Error; err != nil {
		return 0, store.WrapError("read the channels", err)
	}
	changed := 0
	for i := range rows {
		old, err := s.sealedOf(&rows[i])
		if err != nil {
			return changed, err
		}
		current := true
		for _, v := range old {
			current = current && s.sealer.Current(v)
		}
		if current {
			continue
		}
		c, err := s.channelOf(&rows[i])
		if err != nil {
			return changed, err
		}
		row, err := s.rowOfChannel(c)
		if err != nil {
			return changed, err
		}
		res := s.db.WithContext(ctx).Exec("UPDATE channels SET credentials = ?, version = version + 1 WHERE id = ? AND type = ? AND credentials = ?", row.Credentials, row.ID, row.Type, rows[i].Credentials)
		if res.Error != nil {
			return changed, store.WrapError("reseal the channel", res.Error)
		}
		changed += int(res.RowsAffected)
	}
	return changed, nil
}

// sealedOf returns the sealed credentials by field.
func (s *ChannelStore) sealedOf(r *channelRow) (map[string]string, error) {
	sealed := map[string]string{}
	return sealed, r.Credentials.Decode(&sealed)
}

// CheckSeals returns an error if a credential is sealed with a master key that the sealer does not have. Every send over its
// channel would fail, so a process checks this when it starts.
func (s *ChannelStore) CheckSeals(ctx context.Context) error {
	var rows []channelRow
	if err := s.db.WithContext(ctx).Select("id, type, credentials").Find(&rows).Error; err != nil {
		return store.WrapError("read the channels", err)
	}
	for i := range rows {
		sealed, err := s.sealedOf(&rows[i])
		if err != nil {
			return err
		}
		for _, v := range sealed {
			if err := s.sealer.CheckKey(v); err != nil {
				return fmt.Errorf("channel %s of type %s: %w", rows[i].ID, rows[i].Type, err)
			}
		}
	}
	return nil
}

// PauseChannel implements channel.Store. It has no effect on a channel that changed since version seen: the reason may be gone.
func (s *ChannelStore) PauseChannel(ctx context.Context, k channel.Key, seen int64, reason string) error {
	return store.WrapError("pause the channel", s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		res := tx.Exec(`
UPDATE channels SET state = 'PAUSED', state_reason = ?, version = version + 1, updated_at = ?
WHERE id = ? AND type = ? AND state = 'ACTIVE' AND version = ?`, reason, store.Stamp(time.Now()), k.ID, string(k.Type), seen)
		if res.Error != nil || res.RowsAffected == 0 {
			return res.Error
		}
		return s.db.Publish(tx, stateEvent(k, channel.Paused, reason))
	}))
}
