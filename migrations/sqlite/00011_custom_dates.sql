-- +goose Up

-- The custom fields that read as dates, as filters compare them, under keys in hex like those of custom_text. It is NULL for leads
-- without custom fields and for leads that an earlier version wrote, until the backfill leads.custom_date reaches them.
ALTER TABLE leads ADD COLUMN custom_date text;

-- +goose Down
ALTER TABLE leads DROP COLUMN custom_date;
