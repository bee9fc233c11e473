// circuit-overlaps-of-components
// How many components each pair of circuits shares, with positions folded away. A row of a circuit
// with itself gives its number of components; pairs that share nothing have no row.
//
// param circuits: list[circuit] -- Circuits to compare.
// param kind: string = null -- Only components of this kind: head, mlp, kv_head, ...
// returns a: string -- Id of one circuit.
// returns b: string -- Id of the other, later in the alphabet, or the same id.
// returns n_shared: integer -- Number of components that both have.
UNWIND $circuits AS one
MATCH (:Circuit {id: one})-[:HAS_NODE]->(:Node)-[:INSTANCE_OF]->(part:Component)
WHERE $kind IS NULL OR part.kind = $kind
WITH part.id AS part, collect(DISTINCT one) AS users
UNWIND users AS a
UNWIND users AS b
WITH a, b
WHERE a <= b
RETURN a, b, count(*) AS n_shared
ORDER BY a, b
