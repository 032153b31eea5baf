-- +goose Up

-- The program that uses a key. The keys of an owner share idempotency keys, so that a key can be exchanged between a request and
-- its repetition. A key of an earlier version is its own owner. The column caller of idempotency_keys names the owner from now on;
-- its rows of earlier versions name the key, and so the owner.
ALTER TABLE api_keys ADD COLUMN owner text NOT NULL DEFAULT '';
UPDATE api_keys SET owner = id;

-- +goose Down
ALTER TABLE api_keys DROP COLUMN owner;
