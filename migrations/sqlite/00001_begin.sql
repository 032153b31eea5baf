-- +goose Up

-- People. Filters compare folded values byte by byte (NFC and full case folding, done by the application, the same on
-- every database), so each text field has a folded twin. search_text is names, email, company and phone, a line each.
-- tags is an array of strings, tags_fold the same folded. custom_text and custom_number are the custom fields as filters see them, under keys in hex.
CREATE TABLE leads (
    id                text PRIMARY KEY,
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
    assignee_id       text NOT NULL DEFAULT '',
    first_name_fold   text NOT NULL DEFAULT '',
    last_name_fold    text NOT NULL DEFAULT '',
    full_name_fold    text NOT NULL DEFAULT '',
    email_fold        text NOT NULL DEFAULT '',
    phone_fold        text NOT NULL DEFAULT '',
    instagram_id_fold text NOT NULL DEFAULT '',
    company_fold      text NOT NULL DEFAULT '',
    title_fold        text NOT NULL DEFAULT '',
    status_fold       text NOT NULL DEFAULT '',
    source_fold       text NOT NULL DEFAULT '',
    city_fold         text NOT NULL DEFAULT '',
    state_fold        text NOT NULL DEFAULT '',
    country_fold      text NOT NULL DEFAULT '',
    timezone_fold     text NOT NULL DEFAULT '',
    language_fold     text NOT NULL DEFAULT '',
    assignee_id_fold  text NOT NULL DEFAULT '',
    search_text       text NOT NULL DEFAULT '',
    tags              text,
    tags_fold         text,
    custom_fields     text,
    custom_text       text,
    custom_number     text,
    created_at        datetime NOT NULL,
    updated_at        datetime NOT NULL,
    last_contacted_at datetime
);
CREATE INDEX leads_email ON leads (email_fold) WHERE email_fold <> '';
CREATE INDEX leads_phone ON leads (phone) WHERE phone <> '';
CREATE INDEX leads_assignee ON leads (assignee_id) WHERE assignee_id <> '';

-- Sending accounts. One id may be registered once per type. Credentials are sealed by the application.
CREATE TABLE channels (
    id                 text NOT NULL,
    type               text NOT NULL,
    provider           text NOT NULL,
    name               text NOT NULL,
    sender             text NOT NULL,
    sender_name        text NOT NULL DEFAULT '',
    allowed_senders    text NOT NULL,
    credentials        text NOT NULL,
    price_micros       integer NOT NULL DEFAULT 0,
    price_media_micros integer NOT NULL DEFAULT 0,
    currency           text NOT NULL,
    rate_per_second    real NOT NULL DEFAULT 0,
    is_default         boolean NOT NULL DEFAULT 0,
    on_unknown         text NOT NULL,
    base_url           text NOT NULL DEFAULT '',
    region             text NOT NULL DEFAULT '',
    state              text NOT NULL,
    state_reason       text NOT NULL DEFAULT '',
    created_at         datetime NOT NULL,
    updated_at         datetime NOT NULL,
    PRIMARY KEY (id, type)
);
CREATE UNIQUE INDEX channels_default ON channels (type) WHERE is_default;

-- Accepted bulk sends. The lease names the process that plans and feeds; lead_ids is the ids of the request, packed.
CREATE TABLE bulks (
    id               text PRIMARY KEY,
    channel_id       text NOT NULL,
    channel_type     text NOT NULL,
    provider         text NOT NULL,
    message_type     text NOT NULL,
    priority         text NOT NULL,
    content          text NOT NULL,
    criteria         text NOT NULL,
    lead_ids         blob,
    request          text NOT NULL,
    status           text NOT NULL,
    planned          boolean NOT NULL DEFAULT 0,
    plan_cursor      text NOT NULL DEFAULT '',
    total            integer NOT NULL DEFAULT 0,
    not_found        integer NOT NULL DEFAULT 0,
    feed_seq         integer NOT NULL DEFAULT 0,
    settled_seq      integer NOT NULL DEFAULT 0,
    final            text,
    lease_token      text,
    lease_expires_at datetime,
    created_at       datetime NOT NULL,
    started_at       datetime,
    completed_at     datetime
);
CREATE INDEX bulks_running ON bulks (id) WHERE final IS NULL;

-- The ledger: one row per recipient. Rows are updated two or three times in their life, so pages keep room for that,
-- and no index names a column that changes with every delivery: updates stay within the page.
CREATE TABLE messages (
    id                  text PRIMARY KEY,
    bulk_id             text,
    seq                 integer NOT NULL DEFAULT 0,
    lead_id             text,
    channel_id          text NOT NULL,
    channel_type        text NOT NULL,
    provider            text NOT NULL,
    recipient           text NOT NULL,
    -- The first half of the SHA-256 of the recipient; copy is 0 for the one message of a bulk that keeps an address
    -- and seq + 1 for all others, so that one index finds a recipient's messages and forbids a second copy.
    address_hash        blob,
    copy                integer NOT NULL DEFAULT 0,
    message_type        text NOT NULL,
    priority            text NOT NULL,
    content             text,
    metadata            text,
    status              text NOT NULL,
    reason              text NOT NULL DEFAULT '',
    failure             text,
    attempt             integer NOT NULL DEFAULT 0,
    unknowns            integer NOT NULL DEFAULT 0,
    part                integer NOT NULL DEFAULT 0,
    generation          integer NOT NULL DEFAULT 0,
    provider_message_id text NOT NULL DEFAULT '',
    http_status         integer NOT NULL DEFAULT 0,
    cost_micros         integer NOT NULL DEFAULT 0,
    claim_token         text,
    claim_expires_at    datetime,
    claimed_at          datetime,
    next_attempt_at     datetime,
    created_at          datetime NOT NULL,
    scheduled_at        datetime,
    sent_at             datetime,
    updated_at          datetime NOT NULL
);
CREATE UNIQUE INDEX messages_bulk_seq ON messages (bulk_id, seq) WHERE bulk_id IS NOT NULL;
CREATE UNIQUE INDEX messages_lead_bulk ON messages (lead_id, bulk_id);
CREATE UNIQUE INDEX messages_address ON messages (address_hash, bulk_id, copy);
CREATE INDEX messages_due ON messages (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

-- Calls to a provider that did not settle their message as sent at once; the plain success is in the message's row.
CREATE TABLE attempts (
    message_id  text NOT NULL,
    n           integer NOT NULL,
    part        integer NOT NULL,
    outcome     text NOT NULL,
    http_status integer NOT NULL,
    code        text NOT NULL,
    started_at  datetime NOT NULL,
    ended_at    datetime NOT NULL
);
CREATE INDEX attempts_message ON attempts (message_id);

-- Who must not be contacted. The hash is that of messages; the address itself goes when its person is erased, and the
-- suppression stays in force. The flags say which kinds of message it stops.
CREATE TABLE suppressions (
    id            text PRIMARY KEY,
    type          text NOT NULL,
    address       text NOT NULL,
    address_hash  blob NOT NULL,
    reason        text NOT NULL,
    transactional boolean NOT NULL,
    marketing     boolean NOT NULL,
    notification  boolean NOT NULL,
    note          text NOT NULL DEFAULT '',
    created_at    datetime NOT NULL
);
CREATE UNIQUE INDEX suppressions_address ON suppressions (type, address_hash, reason);

-- +goose Down
DROP TABLE suppressions;
DROP TABLE attempts;
DROP TABLE messages;
DROP TABLE bulks;
DROP TABLE channels;
DROP TABLE leads;
