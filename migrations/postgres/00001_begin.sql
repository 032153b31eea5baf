-- +goose Up
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- People. Filters compare folded values byte by byte (NFC and full case folding, done by the application, the same on
-- every database), so each text field has a folded twin. search_text is names, email, company and phone, a line each.
-- tags is an array of strings, tags_fold the same folded. custom_text and custom_number are the custom fields as filters see them, under keys in hex.
CREATE TABLE leads (
    id                uuid PRIMARY KEY,
    first_name        text NOT NULL DEFAULT '',
    last_name         text NOT NULL DEFAULT '',
    email             text NOT NULL DEFAULT '',
    phone             text NOT NULL DEFAULT '',
    instagram_id      text NOT NULL DEFAULT '',
    company           text NOT NULL DEFAULT '',
    title             text NOT NULL DEFAULT '',
    status            text NOT NULL DEFAULT '',
    source            text NOT NULL DEFAULT '',
    city              text NOT NULL DEFAULT '',
    state             text NOT NULL DEFAULT '',
    country           text NOT NULL DEFAULT '',
    timezone          text NOT NULL DEFAULT '',
    language          text NOT NULL DEFAULT '',
    assignee_id       text NOT NULL DEFAULT '' COLLATE "C",
    first_name_fold   text NOT NULL DEFAULT '' COLLATE "C",
    last_name_fold    text NOT NULL DEFAULT '' COLLATE "C",
    full_name_fold    text NOT NULL DEFAULT '' COLLATE "C",
    email_fold        text NOT NULL DEFAULT '' COLLATE "C",
    phone_fold        text NOT NULL DEFAULT '' COLLATE "C",
    instagram_id_fold text NOT NULL DEFAULT '' COLLATE "C",
    company_fold      text NOT NULL DEFAULT '' COLLATE "C",
    title_fold        text NOT NULL DEFAULT '' COLLATE "C",
    status_fold       text NOT NULL DEFAULT '' COLLATE "C",
    source_fold       text NOT NULL DEFAULT '' COLLATE "C",
    city_fold         text NOT NULL DEFAULT '' COLLATE "C",
    state_fold        text NOT NULL DEFAULT '' COLLATE "C",
    country_fold      text NOT NULL DEFAULT '' COLLATE "C",
    timezone_fold     text NOT NULL DEFAULT '' COLLATE "C",
    language_fold     text NOT NULL DEFAULT '' COLLATE "C",
    assignee_id_fold  text NOT NULL DEFAULT '' COLLATE "C",
    search_text       text NOT NULL DEFAULT '' COLLATE "C",
    tags              jsonb,
    tags_fold         jsonb,
    custom_fields     jsonb,
    custom_text       jsonb,
    custom_number     jsonb,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    last_contacted_at timestamptz
);
CREATE INDEX leads_email ON leads (email_fold) WHERE email_fold <> '';
CREATE INDEX leads_phone ON leads (phone) WHERE phone <> '';
-- Substrings of three characters and more are found through their trigrams. The list of pending entries is large, so
-- that an import adds them in bulk.
CREATE INDEX leads_search ON leads USING gin (search_text gin_trgm_ops) WITH (gin_pending_list_limit = 65536);
CREATE INDEX leads_tags ON leads USING gin (tags_fold) WITH (gin_pending_list_limit = 65536);
CREATE INDEX leads_assignee ON leads (assignee_id) WHERE assignee_id <> '';

-- Sending accounts. One id may be registered once per type. Credentials are sealed by the application.
CREATE TABLE channels (
    id                 uuid NOT NULL,
    type               text NOT NULL,
    provider           text NOT NULL,
    name               text NOT NULL,
    sender             text NOT NULL,
    sender_name        text NOT NULL DEFAULT '',
    allowed_senders    jsonb NOT NULL,
    credentials        jsonb NOT NULL,
    price_micros       bigint NOT NULL DEFAULT 0,
    price_media_micros bigint NOT NULL DEFAULT 0,
    currency           text NOT NULL,
    rate_per_second    double precision NOT NULL DEFAULT 0,
    is_default         boolean NOT NULL DEFAULT false,
    on_unknown         text NOT NULL,
    base_url           text NOT NULL DEFAULT '',
    region             text NOT NULL DEFAULT '',
    state              text NOT NULL,
    state_reason       text NOT NULL DEFAULT '',
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    PRIMARY KEY (id, type)
);
CREATE UNIQUE INDEX channels_default ON channels (type) WHERE is_default;

-- Accepted bulk sends. The lease names the process that plans and feeds; lead_ids is the ids of the request, packed.
CREATE TABLE bulks (
    id               uuid PRIMARY KEY,
    channel_id       uuid NOT NULL,
    channel_type     text NOT NULL,
    provider         text NOT NULL,
    message_type     text NOT NULL,
    priority         text NOT NULL,
    content          jsonb NOT NULL,
    criteria         jsonb NOT NULL,
    lead_ids         bytea,
    request          jsonb NOT NULL,
    status           text NOT NULL,
    planned          boolean NOT NULL DEFAULT false,
    plan_cursor      text NOT NULL DEFAULT '',
    total            bigint NOT NULL DEFAULT 0,
    not_found        bigint NOT NULL DEFAULT 0,
    feed_seq         bigint NOT NULL DEFAULT 0,
    settled_seq      bigint NOT NULL DEFAULT 0,
    final            jsonb,
    lease_token      uuid,
    lease_expires_at timestamptz,
    created_at       timestamptz NOT NULL,
    started_at       timestamptz,
    completed_at     timestamptz
);
CREATE INDEX bulks_running ON bulks (id) WHERE final IS NULL;

-- The ledger: one row per recipient. Rows are updated two or three times in their life, so pages keep room for that,
-- and no index names a column that changes with every delivery: updates stay within the page.
CREATE TABLE messages (
    id                  uuid PRIMARY KEY,
    bulk_id             uuid,
    seq                 bigint NOT NULL DEFAULT 0,
    lead_id             uuid,
    channel_id          uuid NOT NULL,
    channel_type        text NOT NULL,
    provider            text NOT NULL,
    recipient           text NOT NULL,
    -- The first half of the SHA-256 of the recipient; copy is 0 for the one message of a bulk that keeps an address
    -- and seq + 1 for all others, so that one index finds a recipient's messages and forbids a second copy.
    address_hash        bytea,
    copy                bigint NOT NULL DEFAULT 0,
    message_type        text NOT NULL,
    priority            text NOT NULL,
    content             jsonb,
    metadata            jsonb,
    status              text NOT NULL,
    reason              text NOT NULL DEFAULT '',
    failure             jsonb,
    attempt             smallint NOT NULL DEFAULT 0,
    unknowns            smallint NOT NULL DEFAULT 0,
    part                smallint NOT NULL DEFAULT 0,
    generation          int NOT NULL DEFAULT 0,
    provider_message_id text NOT NULL DEFAULT '',
    http_status         smallint NOT NULL DEFAULT 0,
    cost_micros         bigint NOT NULL DEFAULT 0,
    claim_token         uuid,
    claim_expires_at    timestamptz,
    claimed_at          timestamptz,
    next_attempt_at     timestamptz,
    created_at          timestamptz NOT NULL,
    scheduled_at        timestamptz,
    sent_at             timestamptz,
    updated_at          timestamptz NOT NULL
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
CREATE UNIQUE INDEX messages_bulk_seq ON messages (bulk_id, seq) WHERE bulk_id IS NOT NULL;
CREATE UNIQUE INDEX messages_lead_bulk ON messages (lead_id, bulk_id);
CREATE UNIQUE INDEX messages_address ON messages (address_hash, bulk_id, copy);
CREATE INDEX messages_due ON messages (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

-- Calls to a provider that did not settle their message as sent at once; the plain success is in the message's row.
CREATE TABLE attempts (
    message_id  uuid NOT NULL,
    n           smallint NOT NULL,
    part        smallint NOT NULL,
    outcome     text NOT NULL,
    http_status smallint NOT NULL,
    code        text NOT NULL,
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz NOT NULL
);
CREATE INDEX attempts_message ON attempts (message_id);

-- Who must not be contacted. The hash is that of messages; the address itself goes when its person is erased, and the
-- suppression stays in force. The flags say which kinds of message it stops.
CREATE TABLE suppressions (
    id            uuid PRIMARY KEY,
    type          text NOT NULL,
    address       text NOT NULL,
    address_hash  bytea NOT NULL,
    reason        text NOT NULL,
    transactional boolean NOT NULL,
    marketing     boolean NOT NULL,
    notification  boolean NOT NULL,
    note          text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL
);
CREATE UNIQUE INDEX suppressions_address ON suppressions (type, address_hash, reason);

-- +goose Down
DROP TABLE suppressions, attempts, messages, bulks, channels, leads;
