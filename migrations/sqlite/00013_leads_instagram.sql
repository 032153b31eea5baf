-- +goose Up

-- Leads are looked up by the account that wrote. Few leads have one, so imports rarely touch the index.
CREATE INDEX leads_instagram ON leads (instagram_id_fold) WHERE instagram_id_fold <> '';

-- +goose Down
DROP INDEX leads_instagram;
