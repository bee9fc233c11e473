// circuit-differences
// Connections of either of two circuits, with their effects in each.
//
// param a: circuit -- One circuit.
// param b: circuit -- The other.
// returns connection: string -- Connection with its model.
// returns source: string -- Component it leaves.
// returns target: string -- Component it enters.
// returns port: string? -- Input of an attention head it enters: q, k or v.
// returns in_a: boolean -- Whether a uses it.
// returns in_b: boolean -- Whether b uses it.
// returns effect_a: number? -- Effect in a; positive helps if the circuit's sign is helps-positive.
// returns effect_b: number? -- Effect in b.
// returns rank_a: integer? -- Rank in a, 1 for the strongest.
// returns rank_b: integer? -- Rank in b.
UNWIND [$a, $b] AS one
MATCH (:Circuit {id: one})-[uses:USES]->(link:Connection)
WITH link.id AS id, collect(one) AS users,
     max(CASE WHEN one = $a THEN uses.effect END) AS effect_a,
     max(CASE WHEN one = $b THEN uses.effect END) AS effect_b,
     max(CASE WHEN one = $a THEN uses.rank END) AS rank_a,
     max(CASE WHEN one = $b THEN uses.rank END) AS rank_b
MATCH (connection:Connection {id: id})-[:FROM]->(source:Component)
MATCH (connection)-[:TO]->(target:Component)
RETURN id AS connection, source.id AS source, target.id AS target, connection.port AS port,
       $a IN users AS in_a, $b IN users AS in_b, effect_a, effect_b, rank_a, rank_b
ORDER BY connection
