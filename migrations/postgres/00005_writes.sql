-- +goose Up

-- version grows with every write of a channel. A bulk keeps the version that it was accepted with, so that a process that
-- caches an older one reads the channel again before it plans.
ALTER TABLE channels ADD COLUMN version bigint NOT NULL DEFAULT 1;
ALTER TABLE bulks ADD COLUMN channel_version bigint NOT NULL DEFAULT 0;

-- The process whose imports may write batches beside each other. A process excludes batches that name the same people by
-- itself; this row keeps batches of two processes apart.
CREATE TABLE import_lease (
    id    smallint PRIMARY KEY CHECK (id = 1),
    token uuid NOT NULL
);
INSERT INTO import_lease (id, token) VALUES (1, '00000000-0000-0000-0000-000000000000');

-- +goose Down
DROP TABLE import_lease;
ALTER TABLE bulks DROP COLUMN channel_version;
ALTER TABLE channels DROP COLUMN version;
