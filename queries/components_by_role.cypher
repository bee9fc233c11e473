// components-by-role
// Components that active circuits know for a role: which heads are name movers? Model after model.
//
// param role: string = null -- Role, in capitals or not; null lists all.
// param part: boolean = false -- Also roles whose name contains it, such as backup name mover.
// param model: model = null -- Only components of this model.
// param task: task = null -- Only circuits of this task.
// param method: string = null -- Only circuits found by this method, such as published.
// returns model: string -- Model it lies in.
// returns component: string -- Component with its model, such as gpt2/a9.h9.
// returns kind: string -- Sort of component: head, kv_head, mlp, ...
// returns layer: integer? -- Block it lies in.
// returns role: string -- Role it is known for.
// returns positions: list[string] -- Token positions at which it has the role, where a circuit says.
// returns tasks: list[string] -- Tasks on which it has it.
// returns n_circuits: integer -- How many circuits say so.
// returns circuits: list[string] -- Ids of these circuits.
MATCH (circuit:Circuit)-[:HAS_NODE]->(node:Node)-[:INSTANCE_OF]->(part:Component)
WHERE circuit.state = 'active' AND node.role IS NOT NULL
  AND ($role IS NULL OR toLower(node.role) = toLower($role)
       OR ($part AND toLower(node.role) CONTAINS toLower($role)))
  AND ($model IS NULL OR circuit.model = $model)
  AND ($task IS NULL OR circuit.task = $task)
  AND ($method IS NULL OR circuit.method = $method)
WITH part.id AS id, node.role AS role, circuit.id AS circuit, circuit.task AS task,
     node.position AS position
ORDER BY id, role, task, circuit, position
WITH id, role, collect(DISTINCT position) AS positions, collect(DISTINCT task) AS tasks,
     collect(DISTINCT circuit) AS circuits
MATCH (component:Component {id: id})
RETURN component.model AS model, id AS component, component.kind AS kind, component.layer AS layer,
       role, positions, tasks, size(circuits) AS n_circuits, circuits
ORDER BY model, role, layer, component
