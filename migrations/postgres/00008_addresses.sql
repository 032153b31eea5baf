-- +goose NO TRANSACTION
-- +goose Up

-- phone_fold and email_fold hold the normalised address: a number in E.164, an email address without its display name. Imports and
-- look-ups compare these columns. The index is built while servers write.
DROP INDEX CONCURRENTLY IF EXISTS leads_phone_fold;
CREATE INDEX CONCURRENTLY leads_phone_fold ON leads (phone_fold) WHERE phone_fold <> '';
DROP INDEX CONCURRENTLY IF EXISTS leads_phone;

-- Numbers of Mexico and Brazil have one form, that of today's numbering plan. A suppression of the earlier form gets a copy with
-- today's form; the row itself stays, for servers of the earlier version. The copy keeps the first 24 characters of the id, in which
-- the time is, so that lists show both at the same place.
INSERT INTO suppressions (id, type, address, address_hash, reason, transactional, marketing, notification, note, created_at)
SELECT overlay(s.id::text PLACING substr(md5(random()::text || s.id::text), 1, 12) FROM 25)::uuid, s.type, c.address,
    substring(sha256(convert_to(c.address, 'UTF8')) FOR 16), s.reason, s.transactional, s.marketing, s.notification, s.note, s.created_at
FROM suppressions s, LATERAL (SELECT CASE
        WHEN s.address ~ '^\+521[2-9][0-9]{9}$' THEN '+52' || substr(s.address, 5)
        WHEN s.address ~ '^\+55[1-9][0-9][6-9][0-9]{7}$' THEN substr(s.address, 1, 5) || '9' || substr(s.address, 6)
    END AS address) c
WHERE s.type = 'SMS' AND c.address IS NOT NULL
ON CONFLICT DO NOTHING;

-- +goose Down
CREATE INDEX CONCURRENTLY leads_phone ON leads (phone) WHERE phone <> '';
DROP INDEX CONCURRENTLY leads_phone_fold;
