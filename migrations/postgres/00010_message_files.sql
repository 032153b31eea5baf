-- +goose Up

-- The bytes of attachments, in pieces. owner_id is a single's id, or that of a bulk, whose messages share them; file is the index of
-- the attachment in the owner's content. Attachments are mostly compressed already, so PostgreSQL does not try again.
CREATE TABLE message_files (
    owner_id uuid NOT NULL,
    file     smallint NOT NULL,
    piece    smallint NOT NULL,
    data     bytea NOT NULL,
    PRIMARY KEY (owner_id, file, piece)
);
ALTER TABLE message_files ALTER COLUMN data SET STORAGE EXTERNAL;

-- +goose Down
DROP TABLE message_files;
