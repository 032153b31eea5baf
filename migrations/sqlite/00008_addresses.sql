-- +goose Up

-- phone_fold and email_fold hold the normalised address: a number in E.164, an email address without its display name. Imports and
-- look-ups compare these columns.
CREATE INDEX leads_phone_fold ON leads (phone_fold) WHERE phone_fold <> '';
DROP INDEX leads_phone;

-- Numbers of Mexico and Brazil have one form, that of today's numbering plan. A suppression of the earlier form gets a copy with
-- today's form. The copy keeps the first 24 characters of the id, in which the time is, so that lists show both at the same place.
-- address_hash is a function of the application.
INSERT INTO suppressions (id, type, address, address_hash, reason, transactional, marketing, notification, note, created_at)
SELECT substr(id, 1, 24) || lower(hex(randomblob(6))), type, today, address_hash(today), reason, transactional, marketing, notification, note, created_at
FROM (SELECT *, CASE
        WHEN address GLOB '+521[2-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]' THEN '+52' || substr(address, 5)
        WHEN address GLOB '+55[1-9][0-9][6-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]' THEN substr(address, 1, 5) || '9' || substr(address, 6)
    END AS today FROM suppressions WHERE type = 'SMS')
WHERE today IS NOT NULL
ON CONFLICT DO NOTHING;

-- +goose Down
CREATE INDEX leads_phone ON leads (phone) WHERE phone <> '';
DROP INDEX leads_phone_fold;
