-- +goose Up

-- 0: nothing known. 1: a worker died while it held the message unclaimed, or the message is sent once more after an unknown
-- outcome. 2: a worker has begun to render the message while it was suspected, and has not recorded that it came through.
ALTER TABLE messages ADD COLUMN suspect smallint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE messages DROP COLUMN suspect;
