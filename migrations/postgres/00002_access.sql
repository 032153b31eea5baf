-- +goose Up

-- Keys of the API. hash is the SHA-256 of the secret, which only its holder knows; rate is in requests a second, 0 for
-- the deployment's own. Keys are revoked and never deleted, so that nothing ever opens the API again.
CREATE TABLE api_keys (
    id           text PRIMARY KEY,
    name         text NOT NULL,
    hash         bytea NOT NULL,
    scopes       text NOT NULL,
    rate         double precision NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);

-- What was done under an idempotency key: effect_id is a message's, or a bulk's. Rows are written with their effect, in one
-- transaction, and kept for seven days. caller is the id of the API key that sent it, empty where there are none.
CREATE TABLE idempotency_keys (
    caller      text NOT NULL,
    key_hash    bytea NOT NULL,
    fingerprint bytea NOT NULL,
    effect_id   uuid NOT NULL,
    is_bulk     boolean NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (caller, key_hash)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- A single that was sent under an idempotency key.
ALTER TABLE messages ADD COLUMN keyed boolean NOT NULL DEFAULT false;

-- +goose Down
ALTER TABLE messages DROP COLUMN keyed;
DROP TABLE idempotency_keys;
DROP TABLE api_keys;
