-- How far the queue had come in each of its epochs: what Redis is compared with when it comes back as another one, and
-- what tells how many entries were lost with it. An epoch ends when Redis is started again, wiped, restored or replaced.

CREATE TABLE queue_epochs (
    epoch    bigint         PRIMARY KEY,
    start    bigint         NOT NULL,
    tail     bigint         NOT NULL,
    kept     int8multirange NOT NULL,
    position bigint         NOT NULL,
    begun_at timestamptz    NOT NULL DEFAULT now()
);
COMMENT ON COLUMN queue_epochs.start IS 'The offset of the first entry of this epoch';
COMMENT ON COLUMN queue_epochs.tail IS 'Behind the last entry that anybody was told of';
COMMENT ON COLUMN queue_epochs.kept IS 'Offsets of entries that are stored, or went on into the next epoch';
COMMENT ON COLUMN queue_epochs.position IS 'The highest position that was stored in this epoch';

INSERT INTO queue_epochs (epoch, start, tail, kept, position)
SELECT epoch, head, tail, int8multirange(int8range(head, tail)), position FROM queue_state;

DROP TABLE queue_state;

-- A conversation that is loaded goes on behind its dead letters too: one that is replayed keeps its place.
ALTER TABLE dead_letters ADD COLUMN position bigint;
UPDATE dead_letters SET position = split_part(convert_from(entry, 'LATIN1'), ' ', 4)::bigint WHERE tenant IS NOT NULL;
