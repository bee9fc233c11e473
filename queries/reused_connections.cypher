// reused-connections
// Connections that at least min_circuits circuits of any task use, the most used first. All circuits
// of the graph count, active and superseded; n_active and n_tasks count only active ones. If several
// models are recorded, model names the model of each row.
//
// param min_circuits: count = 2 -- Smallest number of circuits.
// param limit: count = 100 -- Largest number of rows.
// param model: model = null -- Only connections of this model.
// returns model: string -- Its model.
// returns connection: string -- Connection with its model.
// returns source: string -- Component it leaves.
// returns target: string -- Component it enters.
// returns port: string? -- Input of an attention head it enters: q, k or v.
// returns n_circuits: integer -- Number of circuits that use it.
// returns n_active: integer -- Number of these that are active.
// returns n_tasks: integer -- Number of tasks of the active ones.
MATCH (link:Connection)
WHERE $model IS NULL OR link.model = $model
// An unlabelled end lets both engines read the number of relationships without visiting them.
WITH link, COUNT { (link)<-[:USES]-() } AS n_circuits
WHERE n_circuits >= $min_circuits
WITH link.id AS id, n_circuits
ORDER BY n_circuits DESC, id
LIMIT $limit
MATCH (circuit:Circuit)-[:USES]->(:Connection {id: id})
WITH id, n_circuits,
     sum(CASE WHEN circuit.state = 'active' THEN 1 ELSE 0 END) AS n_active,
     count(DISTINCT CASE WHEN circuit.state = 'active' THEN circuit.task END) AS n_tasks
MATCH (connection:Connection {id: id})-[:FROM]->(source:Component)
MATCH (connection)-[:TO]->(target:Component)
RETURN connection.model AS model, id AS connection, source.id AS source, target.id AS target,
       connection.port AS port, n_circuits, n_active, n_tasks
ORDER BY n_circuits DESC, connection
