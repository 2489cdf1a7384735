-- Full text of what was said. Making the words of an item costs more than storing it, so that is done behind the back of the
-- queue, and until then a search makes them itself: `search_due` tells of what.

-- The first 100,000 characters of an item's text; never images or files.
CREATE FUNCTION item_text(item jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
    SELECT left(string_agg(CASE jsonb_typeof(part) WHEN 'string' THEN part #>> '{}'
                           ELSE coalesce(part->>'text', part->>'refusal') END, E'\n'), 100000)
      FROM (SELECT jsonb_path_query(item, '$.content[*]') UNION ALL SELECT jsonb_path_query(item, '$.output[*]')) AS said(part)
$$;

-- Words as they are, of any language. No text may be refused: of a word and its parts so many characters come to 830,000 bytes
-- at most, and a tsvector takes 1,048,575; words beyond 2,046 bytes are left out.
CREATE FUNCTION item_words(item jsonb) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
    SELECT to_tsvector('simple', coalesce(item_text(item), ''))
$$;

CREATE TABLE searchable (
    tenant       text     NOT NULL,
    conversation text     NOT NULL,
    position     bigint   NOT NULL,
    words        tsvector NOT NULL,
    PRIMARY KEY (tenant, conversation, position),
    FOREIGN KEY (tenant, conversation, position) REFERENCES items ON DELETE CASCADE
);
COMMENT ON TABLE searchable IS 'The words of items in conversations; threads without one are in no list';

CREATE INDEX searchable_words ON searchable USING gin (words);

CREATE TABLE search_due (
    id            bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenants       text[]   NOT NULL,
    conversations text[]   NOT NULL,
    firsts        bigint[] NOT NULL
);
COMMENT ON TABLE search_due IS 'Conversations with items from a position on that may not be in `searchable` yet; a row for each range';

INSERT INTO search_due (tenants, conversations, firsts)
SELECT array_agg(tenant), array_agg(conversation), array_agg(first)
  FROM (SELECT tenant, conversation, min(position) AS first, (row_number() OVER () - 1) / 500 AS part
          FROM items WHERE starts_with(conversation, 'conv_') GROUP BY tenant, conversation) AS known
 GROUP BY part;
