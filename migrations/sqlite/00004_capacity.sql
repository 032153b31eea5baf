-- +goose Up

-- turn_at orders the bulks of a channel that wait, and tells when one that has only messages under way is looked at
-- again; NULL: it has had no turn yet. status_reason says why Herald itself ended a bulk.
ALTER TABLE bulks ADD COLUMN turn_at datetime;
ALTER TABLE bulks ADD COLUMN status_reason text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE bulks DROP COLUMN turn_at;
ALTER TABLE bulks DROP COLUMN status_reason;
