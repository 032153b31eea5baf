-- +goose Up

-- What a bulk shows of its request and its channel when the channel has been deleted. The currency is that of the channel at
-- acceptance; bulks of earlier versions take it from their channel, and have none when the channel is deleted.
ALTER TABLE bulks ADD COLUMN name text NOT NULL DEFAULT '';
ALTER TABLE bulks ADD COLUMN currency text NOT NULL DEFAULT '';
ALTER TABLE bulks ADD COLUMN key_id text NOT NULL DEFAULT '';
ALTER TABLE bulks ADD COLUMN key_name text NOT NULL DEFAULT '';
ALTER TABLE bulks ADD COLUMN planned_at timestamptz;
UPDATE bulks SET currency = COALESCE((SELECT c.currency FROM channels c WHERE c.id = bulks.channel_id AND c.type = bulks.channel_type), '');
CREATE INDEX bulks_name ON bulks (name, id);

-- +goose Down
DROP INDEX bulks_name;
ALTER TABLE bulks DROP COLUMN name;
ALTER TABLE bulks DROP COLUMN currency;
ALTER TABLE bulks DROP COLUMN key_id;
ALTER TABLE bulks DROP COLUMN key_name;
ALTER TABLE bulks DROP COLUMN planned_at;
