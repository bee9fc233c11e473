// shared-connections
// Connections that at least so many of the given tasks use, and what they do in each. A task uses
// what any of its active circuits uses.
//
// param tasks: list[task] -- Tasks to compare, two or more.
// param min_tasks: count = null -- Smallest number of these tasks; null means all of them.
// param model: model = null -- Only circuits of this model.
// param method: string = null -- Only circuits found by this method.
// returns connection: string -- Connection with its model, such as gpt2/a9.h6->a10.h7<k>.
// returns source: string -- Component it leaves.
// returns target: string -- Component it enters.
// returns port: string? -- Input of an attention head it enters: q, k or v.
// returns n_tasks: integer -- How many of the tasks use it.
// returns n_circuits: integer -- How many of their circuits use it.
// returns tasks: list[map] -- One map a task, by slug: task, n_circuits, effect (mean over circuits;
//   null where none has signed effects) and magnitude (the same without signs).
UNWIND $tasks AS slug
MATCH (:Task {id: slug})<-[:FOR_TASK]-(circuit:Circuit)
WHERE circuit.state = 'active'
  AND ($model IS NULL OR circuit.model = $model)
  AND ($method IS NULL OR circuit.method = $method)
WITH slug, circuit
ORDER BY slug, circuit.id
MATCH (circuit)-[uses:USES]->(link:Connection)
WITH link.id AS id, slug, count(*) AS n_circuits, collect(abs(uses.effect)) AS sizes,
     collect(CASE WHEN circuit.sign = 'helps-positive' THEN uses.effect END) AS effects
ORDER BY id, slug
WITH id, count(slug) AS n_tasks, sum(n_circuits) AS n_circuits,
     collect({
       task: slug,
       n_circuits: n_circuits,
       effect: CASE WHEN size(effects) > 0
                    THEN reduce(total = 0.0, e IN effects | total + e) / size(effects) END,
       magnitude: CASE WHEN size(sizes) > 0
                       THEN reduce(total = 0.0, e IN sizes | total + e) / size(sizes) END
     }) AS tasks
WHERE n_tasks >= coalesce($min_tasks, size($tasks))
MATCH (connection:Connection {id: id})-[:FROM]->(source:Component)
MATCH (connection)-[:TO]->(target:Component)
RETURN id AS connection, source.id AS source, target.id AS target, connection.port AS port,
       n_tasks, n_circuits, tasks
ORDER BY n_tasks DESC, n_circuits DESC, connection
