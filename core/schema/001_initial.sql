-- The first schema. Ids and JSON come from clients, so nothing here may refuse a row that the edge accepts.

CREATE TABLE conversations (
    tenant          text        NOT NULL,
    id              text        NOT NULL,
    created_at      timestamptz NOT NULL,
    hidden          boolean     NOT NULL,
    parent          text,
    parent_position bigint,
    position        bigint      NOT NULL,
    metadata        jsonb       NOT NULL,
    PRIMARY KEY (tenant, id)
);
COMMENT ON COLUMN conversations.hidden IS 'A thread of responses without a conversation; has a row only when it is a fork';
COMMENT ON COLUMN conversations.position IS 'Of its last writer: ranges of the queue commit out of order, the highest wins';

-- Who inherits from a conversation that is deleted.
CREATE INDEX conversations_parent ON conversations (tenant, parent) WHERE parent IS NOT NULL;

CREATE TABLE items (
    tenant       text        NOT NULL,
    conversation text        NOT NULL,
    position     bigint      NOT NULL,
    id           text        NOT NULL,
    response     text,
    created_at   timestamptz NOT NULL,
    item         jsonb       NOT NULL,
    PRIMARY KEY (tenant, conversation, position),
    UNIQUE (tenant, id)
);
COMMENT ON COLUMN items.position IS 'Microseconds of Unix time or more, growing in the order of acknowledgement';

CREATE TABLE responses (
    tenant       text        NOT NULL,
    id           text        NOT NULL,
    conversation text        NOT NULL,
    position     bigint      NOT NULL,
    input_count  integer     NOT NULL,
    output_count integer     NOT NULL,
    created_at   timestamptz NOT NULL,
    body         jsonb       NOT NULL,
    PRIMARY KEY (tenant, id)
);
COMMENT ON COLUMN responses.position IS
    'Of its first item; 0 when it left the conversation as it was, and then the body has its input';

CREATE INDEX responses_position ON responses (tenant, conversation, position);

CREATE TABLE dead_letters (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest       bytea       NOT NULL UNIQUE,
    tenant       text,
    conversation text,
    kind         text,
    entry_id     text,
    response     text,
    reason       text        NOT NULL,
    entry        bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN dead_letters.digest IS 'SHA-256 of the entry, so that a range that is done again adds nothing';

CREATE INDEX dead_letters_conversation ON dead_letters (tenant, conversation);

CREATE TABLE tombstones (
    tenant       text        NOT NULL,
    kind         text        NOT NULL,
    id           text        NOT NULL,
    conversation text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, kind, id)
);
COMMENT ON TABLE tombstones IS 'What was deleted: a late entry of it is left out';

-- A range asks once per conversation what is deleted of it.
CREATE INDEX tombstones_conversation ON tombstones (tenant, conversation);

CREATE TABLE queue_state (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch    bigint  NOT NULL,
    head     bigint  NOT NULL,
    tail     bigint  NOT NULL,
    position bigint  NOT NULL
);
COMMENT ON TABLE queue_state IS 'How far the queue had come: what Redis is compared with after it was lost or rewound';
