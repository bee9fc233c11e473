// nearest-by-components
// Active circuits whose components are most similar to those of a given circuit, with or without
// edges.
//
// param circuit: circuit -- Circuit to start from.
// param task: task = null -- Only circuits of this task.
// param method: string = null -- Only circuits found by this method, such as published.
// param limit: count = 10 -- Largest number of rows.
// returns circuit: string -- Id of a similar circuit.
// returns task: string -- Task it was found on.
// returns method: string -- Method that found it.
// returns n_components: integer -- Number of its components, each counted once for all positions.
// returns n_shared: integer -- Number of these that the given circuit has too.
// returns similarity: number -- Shared components over all components of both circuits (Jaccard), 0 to 1.
// returns title: string -- Its title; empty if it has none.
MATCH (:Circuit {id: $circuit})-[:HAS_NODE]->(:Node)-[:INSTANCE_OF]->(own:Component)
WITH collect(DISTINCT own.id) AS parts
WITH parts, size(parts) AS n_given
UNWIND parts AS part
MATCH (:Component {id: part})<-[:INSTANCE_OF]-(:Node)<-[:HAS_NODE]-(other:Circuit)
WITH other.id AS id, n_given, count(DISTINCT part) AS n_shared
MATCH (near:Circuit {id: id})
WHERE near.state = 'active' AND id <> $circuit
  AND ($task IS NULL OR near.task = $task)
  AND ($method IS NULL OR near.method = $method)
MATCH (near)-[:HAS_NODE]->(:Node)-[:INSTANCE_OF]->(its:Component)
WITH id, n_given, n_shared, near.task AS task, near.method AS method, near.title AS title,
     count(DISTINCT its.id) AS n_components
RETURN id AS circuit, task, method, n_components, n_shared,
       toFloat(n_shared) / (n_given + n_components - n_shared) AS similarity, title
ORDER BY similarity DESC, circuit
LIMIT $limit
