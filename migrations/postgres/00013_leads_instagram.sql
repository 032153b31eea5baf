-- +goose NO TRANSACTION
-- +goose Up

-- Leads are looked up by the account that wrote. Few leads have one, so imports rarely touch the index. It is built while servers
-- write.
DROP INDEX CONCURRENTLY IF EXISTS leads_instagram;
CREATE INDEX CONCURRENTLY leads_instagram ON leads (instagram_id_fold) WHERE instagram_id_fold <> '';

-- +goose Down
DROP INDEX CONCURRENTLY leads_instagram;
