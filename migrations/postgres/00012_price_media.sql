-- +goose Up

-- Whether a channel has a price of messages with media. 0 alone meant that it has none; with this column 0 can be a price.
ALTER TABLE channels ADD COLUMN has_price_media boolean NOT NULL DEFAULT false;

-- +goose Down
ALTER TABLE channels DROP COLUMN has_price_media;
