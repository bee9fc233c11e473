// circuit-overlaps
// How many connections each pair of circuits shares. A row of a circuit with itself gives its number
// of connections; pairs that share nothing have no row.
//
// param circuits: list[circuit] -- Circuits to compare.
// returns a: string -- Id of one circuit.
// returns b: string -- Id of the other, later in the alphabet, or the same id.
// returns n_shared: integer -- Number of connections that both have.
UNWIND $circuits AS one
MATCH (:Circuit {id: one})-[:USES]->(link:Connection)
WITH link.id AS link, collect(one) AS users
UNWIND users AS a
UNWIND users AS b
WITH a, b
WHERE a <= b
RETURN a, b, count(*) AS n_shared
ORDER BY a, b
