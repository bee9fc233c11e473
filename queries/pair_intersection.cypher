// pair-intersection
// Connections that two circuits share, with their effects in each.
//
// param a: circuit -- One circuit.
// param b: circuit -- The other.
// returns connection: string -- Connection with its model.
// returns source: string -- Component it leaves.
// returns target: string -- Component it enters.
// returns port: string? -- Input of an attention head it enters: q, k or v.
// returns effect_a: number? -- Effect in a; positive helps if the circuit's sign is helps-positive.
// returns effect_b: number? -- Effect in b.
// returns rank_a: integer? -- Rank in a, 1 for the strongest.
// returns rank_b: integer? -- Rank in b.
MATCH (:Circuit {id: $a})-[in_a:USES]->(connection:Connection)
WITH connection, in_a.effect AS effect_a, in_a.rank AS rank_a
MATCH (connection)<-[in_b:USES]-(:Circuit {id: $b})
MATCH (connection)-[:FROM]->(source:Component)
MATCH (connection)-[:TO]->(target:Component)
RETURN connection.id AS connection, source.id AS source, target.id AS target,
       connection.port AS port, effect_a, in_b.effect AS effect_b, rank_a, in_b.rank AS rank_b
ORDER BY connection
