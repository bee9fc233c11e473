// tasks-using-connections
// Which tasks use each connection of some circuits. A task uses what any of its circuits uses.
//
// param circuits: list[circuit] -- Circuits that represent their tasks.
// param ports: boolean = true -- Keep the queries, keys and values of a head separate; false folds them.
// returns connection: string -- Connection with its model, such as gpt2/a9.h6->a10.h7<k>.
// returns n_tasks: integer -- Number of tasks that use it.
// returns n_circuits: integer -- Number of the circuits that use it.
// returns tasks: list[map] -- One map per task, by slug: task, n_circuits.
UNWIND $circuits AS one
MATCH (circuit:Circuit {id: one})-[:USES]->(link:Connection)
WITH CASE WHEN $ports THEN link.id ELSE split(link.id, '<')[0] END AS id, circuit.task AS slug,
     count(DISTINCT one) AS n_circuits
ORDER BY id, slug
WITH id, count(*) AS n_tasks, sum(n_circuits) AS n_circuits,
     collect({task: slug, n_circuits: n_circuits}) AS tasks
RETURN id AS connection, n_tasks, n_circuits, tasks
ORDER BY n_tasks DESC, n_circuits DESC, connection
