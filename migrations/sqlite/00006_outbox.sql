-- +goose Up

-- Events, written in the transaction that causes them. data is the event in JSON, without personal data. Rows are deleted
-- after seven days.
CREATE TABLE outbox (
    id         integer PRIMARY KEY AUTOINCREMENT,
    type       text NOT NULL,
    subject_id text NOT NULL,
    data       text NOT NULL,
    created_at datetime NOT NULL
);
CREATE INDEX outbox_age ON outbox (created_at);

-- The progress of data migrations that run in batches while servers run: cursor is the position after the last batch.
CREATE TABLE backfills (
    name       text PRIMARY KEY,
    cursor     text NOT NULL,
    done       boolean NOT NULL,
    updated_at datetime NOT NULL
);

-- +goose Down
DROP TABLE backfills;
DROP TABLE outbox;
