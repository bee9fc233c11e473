// Records that a graph could not store, with the reason; the marker holds their number.

CREATE CONSTRAINT put_aside_id IF NOT EXISTS FOR (n:PutAside) REQUIRE n.id IS UNIQUE;
