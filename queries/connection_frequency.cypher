// connection-frequency
// How many of some circuits use each connection, and what it does in them: what is found again on
// other prompts, or by other methods.
//
// param circuits: list[circuit] -- Circuits to count over.
// param ports: boolean = true -- Tell the queries, keys and values of a head apart; else fold them.
// returns connection: string -- Connection with its model, such as gpt2/a9.h6->a10.h7<k>.
// returns source: string -- Component it leaves.
// returns target: string -- Component it enters.
// returns port: string? -- Input of an attention head it enters: q, k or v; null where folded.
// returns n_circuits: integer -- How many of the circuits use it.
// returns share: number -- The same as a share of all of them, 0 to 1.
// returns effect: number? -- Mean effect over those that give one, with a sign; positive helps.
// returns smallest: number? -- Least of these effects.
// returns largest: number? -- Greatest of them.
// returns n_signed: integer -- How many circuits give its effect, with a sign.
// returns n_positive: integer -- In how many of these it helps.
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
