-- +goose Up

-- version grows with every write of a channel. A bulk keeps the version that it was accepted with, so that a process that
-- caches an older one reads the channel again before it plans.
ALTER TABLE channels ADD COLUMN version bigint NOT NULL DEFAULT 1;
ALTER TABLE bulks ADD COLUMN channel_version bigint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE bulks DROP COLUMN channel_version;
ALTER TABLE channels DROP COLUMN version;
