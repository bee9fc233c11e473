// components-by-role
// Components with a role, for example: which heads are name movers? Sorted by model.
//
// Includes roles recorded with active circuits, and roles added later (annotations).
//
// param role: string = null -- Role, in any case; null lists all.
// param part: boolean = false -- Also roles whose name contains role, such as backup name mover.
// param model: model = null -- Only components of this model.
// param task: task = null -- Only circuits of this task.
// param method: string = null -- Only circuits found by this method, such as published.
// param origin: string = null -- Only roles of circuits themselves (circuit) or annotations (annotation).
// param said_by: string = null -- Only roles from this source, in any case.
// returns model: string -- Its model.
// returns component: string -- Component with its model, such as gpt2/a9.h9.
// returns kind: string -- Kind of component: head, kv_head, mlp, ...
// returns layer: integer? -- Block it is in.
// returns role: string -- Its role.
// returns origin: string -- circuit: recorded with the circuit; annotation: added later.
// returns said_by: list[string] -- Sources; for circuits their authors, else their methods.
// returns positions: list[string] -- Token positions at which it has the role, if a circuit gives them.
// returns tasks: list[string] -- Tasks on which it has the role.
// returns n_circuits: integer -- Number of circuits with this role of the component.
// returns circuits: list[string] -- Ids of these circuits.
CALL {
  MATCH (circuit:Circuit)-[:HAS_NODE]->(node:Node)-[:INSTANCE_OF]->(part:Component)
  WHERE circuit.state = 'active' AND node.role IS NOT NULL
  RETURN part.id AS id, node.role AS role, 'circuit' AS origin,
         coalesce(circuit.author, circuit.method) AS source, circuit.id AS circuit,
         circuit.model AS model, circuit.task AS task, circuit.method AS method,
         node.position AS position
  UNION ALL
  MATCH (said:Annotation)-[:OF]->(circuit:Circuit)
  MATCH (said)-[:ANNOTATES]->(node:Node)-[:INSTANCE_OF]->(part:Component)
  WHERE circuit.state = 'active'
  RETURN part.id AS id, said.role AS role, 'annotation' AS origin,
         said.said_by AS source, circuit.id AS circuit,
         circuit.model AS model, circuit.task AS task, circuit.method AS method,
         node.position AS position
}
WITH id, role, origin, source, circuit, model, task, method, position
WHERE ($role IS NULL OR toLower(role) = toLower($role)
       OR ($part AND toLower(role) CONTAINS toLower($role)))
  AND ($model IS NULL OR model = $model)
  AND ($task IS NULL OR task = $task)
  AND ($method IS NULL OR method = $method)
  AND ($origin IS NULL OR origin = $origin)
  AND ($said_by IS NULL OR toLower(source) = toLower($said_by))
WITH id, role, origin, source, circuit, task, position
ORDER BY id, role, origin, task, circuit, source, position
WITH id, role, origin, collect(DISTINCT source) AS said_by,
     collect(DISTINCT position) AS positions, collect(DISTINCT task) AS tasks,
     collect(DISTINCT circuit) AS circuits
MATCH (component:Component {id: id})
RETURN component.model AS model, id AS component, component.kind AS kind, component.layer AS layer,
       role, origin, said_by, positions, tasks, size(circuits) AS n_circuits, circuits
ORDER BY model, role, layer, component, origin
