// connection-frequency
// How many of some circuits use each connection, and its effects in them. This shows what is found
// again on other prompts, or by other methods.
//
// param circuits: list[circuit] -- Circuits to count over.
// param ports: boolean = true -- Keep the queries, keys and values of a head separate; false folds them.
// returns connection: string -- Connection with its model, such as gpt2/a9.h6->a10.h7<k>.
// returns source: string -- Component it leaves.
// returns target: string -- Component it enters.
// returns port: string? -- Input of an attention head it enters: q, k or v; null if folded.
// returns n_circuits: integer -- Number of the circuits that use it.
// returns share: number -- Share of the circuits that use it, 0 to 1.
// returns effect: number? -- Mean of the signed effects; positive helps.
// returns smallest: number? -- Smallest signed effect.
// returns largest: number? -- Largest signed effect.
// returns n_signed: integer -- Number of circuits that give its effect with a sign.
// returns n_positive: integer -- Number of these circuits in which it helps.
// returns circuits: list[string] -- Ids of the circuits that use it.
UNWIND $circuits AS one
MATCH (found:Circuit {id: one})-[uses:USES]->(link:Connection)
WITH one, CASE WHEN $ports THEN link.id ELSE split(link.id, '<')[0] END AS id, link.id AS key,
     CASE WHEN found.sign = 'helps-positive' THEN uses.effect END AS signed
ORDER BY id, one, key
WITH id, one, min(key) AS key, collect(signed) AS parts
WITH id, one, key,
     CASE WHEN size(parts) > 0 THEN reduce(total = 0.0, e IN parts | total + e) END AS effect
ORDER BY id, one
WITH id, min(key) AS key, collect(one) AS circuits, collect(effect) AS effects,
     min(effect) AS smallest, max(effect) AS largest
MATCH (link:Connection {id: key})-[:FROM]->(source:Component)
MATCH (link)-[:TO]->(target:Component)
RETURN id AS connection, source.id AS source, target.id AS target,
       CASE WHEN $ports THEN link.port END AS port,
       size(circuits) AS n_circuits, toFloat(size(circuits)) / size($circuits) AS share,
       CASE WHEN size(effects) > 0
            THEN reduce(total = 0.0, e IN effects | total + e) / size(effects) END AS effect,
       smallest, largest, size(effects) AS n_signed,
       size([e IN effects WHERE e > 0]) AS n_positive, circuits
ORDER BY n_circuits DESC, connection
