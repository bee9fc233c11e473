// shared-connections
// Connections that at least min_tasks of the given tasks use, and their effects in each. A task uses
// what any of its circuits uses. For parts specific to one task, use min_tasks = 1, max_tasks = 1.
// Each model is counted separately. If several models have circuits of the tasks, the rows are sorted
// by model.
//
// param tasks: list[task] -- Tasks to compare, two or more.
// param min_tasks: count = null -- Smallest number of these tasks; null means all of them.
// param max_tasks: count = null -- Largest number of these tasks; null means all of them.
// param circuits: list[circuit] = null -- Only these circuits; null means all active ones.
// param model: model = null -- Only circuits of this model.
// param method: string = null -- Only circuits found by this method.
// returns model: string -- Its model.
// returns connection: string -- Connection with its model, such as gpt2/a9.h6->a10.h7<k>.
// returns source: string -- Component it leaves.
// returns target: string -- Component it enters.
// returns port: string? -- Input of an attention head it enters: q, k or v.
// returns n_tasks: integer -- Number of the tasks that use it.
// returns n_circuits: integer -- Number of their circuits that use it.
// returns tasks: list[map] -- One map per task, by slug: task, n_circuits, effect (mean over circuits;
//   null if none has signed effects) and magnitude (mean absolute effect).
UNWIND $tasks AS slug
MATCH (:Task {id: slug})<-[:FOR_TASK]-(circuit:Circuit)
WHERE (circuit.id IN $circuits OR ($circuits IS NULL AND circuit.state = 'active'))
  AND ($model IS NULL OR circuit.model = $model)
  AND ($method IS NULL OR circuit.method = $method)
WITH slug, circuit
ORDER BY slug, circuit.id
MATCH (circuit)-[uses:USES]->(link:Connection)
WITH link.id AS id, slug, count(*) AS n_circuits, collect(abs(uses.effect)) AS sizes,
     collect(CASE WHEN circuit.sign = 'helps-positive' THEN uses.effect END) AS effects
ORDER BY id, slug
WITH id, count(slug) AS n_tasks, sum(n_circuits) AS n_circuits,
     collect({task: slug, n_circuits: n_circuits, sizes: sizes, effects: effects}) AS uses
WHERE n_tasks >= coalesce($min_tasks, size($tasks)) AND n_tasks <= coalesce($max_tasks, n_tasks)
// Means are computed only over the remaining rows.
WITH id, n_tasks, n_circuits, [use IN uses | {
       task: use.task,
       n_circuits: use.n_circuits,
       effect: CASE WHEN size(use.effects) > 0
                    THEN reduce(total = 0.0, e IN use.effects | total + e) / size(use.effects) END,
       magnitude: CASE WHEN size(use.sizes) > 0
                       THEN reduce(total = 0.0, e IN use.sizes | total + e) / size(use.sizes) END
     }] AS tasks
MATCH (connection:Connection {id: id})-[:FROM]->(source:Component)
MATCH (connection)-[:TO]->(target:Component)
RETURN connection.model AS model, id AS connection, source.id AS source, target.id AS target,
       connection.port AS port, n_tasks, n_circuits, tasks
ORDER BY model, n_tasks DESC, n_circuits DESC, connection
