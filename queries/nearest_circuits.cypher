// nearest-circuits
// Active circuits whose connections are most similar to those of a given circuit.
//
// param circuit: circuit -- Circuit to start from.
// param task: task = null -- Only circuits of this task.
// param method: string = null -- Only circuits found by this method, such as published.
// param limit: count = 10 -- Largest number of rows.
// returns circuit: string -- Id of a similar circuit.
// returns task: string -- Task it was found on.
// returns method: string -- Method that found it.
// returns n_connections: integer -- Number of its connections.
// returns n_shared: integer -- Number of these that the given circuit has too.
// returns similarity: number -- Shared connections over all connections of both circuits (Jaccard), 0 to 1.
// returns title: string -- Its title; empty if it has none.
MATCH (:Circuit {id: $circuit})-[:USES]->(:Connection)<-[:USES]-(other:Circuit)
WITH other.id AS id, count(*) AS n_shared
MATCH (given:Circuit {id: $circuit})
MATCH (near:Circuit {id: id})
WHERE near.state = 'active' AND id <> $circuit
  AND ($task IS NULL OR near.task = $task)
  AND ($method IS NULL OR near.method = $method)
WITH id, n_shared, near.task AS task, near.method AS method, near.title AS title,
     COUNT { (given)-[:USES]->() } AS n_given,
     COUNT { (near)-[:USES]->() } AS n_connections
RETURN id AS circuit, task, method, n_connections, n_shared,
       toFloat(n_shared) / (n_given + n_connections - n_shared) AS similarity, title
ORDER BY similarity DESC, circuit
LIMIT $limit
