// Records that a graph could not take, with the reason; the marker says how many there are.

CREATE CONSTRAINT put_aside_id IF NOT EXISTS FOR (n:PutAside) REQUIRE n.id IS UNIQUE;
