-- +goose Up

-- The number of rows that a data migration has processed, for `herald migrate status`.
ALTER TABLE backfills ADD COLUMN rows_done integer NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE backfills DROP COLUMN rows_done;
