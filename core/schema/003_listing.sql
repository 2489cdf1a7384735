-- What lists a tenant's conversations, newest first, and finds them by their metadata. Ids begin with the time at which they
-- were made, so their order is that of creation; Redis compares bytes, and so must this.

CREATE INDEX conversations_listed ON conversations (tenant, id COLLATE "C") WHERE NOT hidden;

-- Holds hashes, so that no key or value is too long for it.
CREATE INDEX conversations_metadata ON conversations USING gin (metadata jsonb_path_ops) WHERE NOT hidden;
