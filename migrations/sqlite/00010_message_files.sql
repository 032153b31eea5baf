-- +goose Up

-- The bytes of attachments, in pieces. owner_id is a single's id, or that of a bulk, whose messages share them; file is the index of
-- the attachment in the owner's content.
CREATE TABLE message_files (
    owner_id text NOT NULL,
    file     integer NOT NULL,
    piece    integer NOT NULL,
    data     blob NOT NULL,
    PRIMARY KEY (owner_id, file, piece)
);

-- +goose Down
DROP TABLE message_files;
