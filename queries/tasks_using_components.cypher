// tasks-using-components
// Which tasks use each component of some circuits. A task uses what any of its circuits uses.
//
// param circuits: list[circuit] -- Circuits that represent their tasks.
// returns component: string -- Component with its model, such as gpt2/a9.h6.
// returns kind: string -- Kind of component: head, kv_head, mlp, ...
// returns layer: integer? -- Block it is in; null for input and logits.
// returns n_tasks: integer -- Number of tasks that use it.
// returns n_circuits: integer -- Number of the circuits that use it.
// returns tasks: list[map] -- One map a task, by slug: task, n_circuits.
// returns roles: list[string] -- Roles it is known for in these circuits: their own, and annotations.
UNWIND $circuits AS one
MATCH (circuit:Circuit {id: one})-[:HAS_NODE]->(node:Node)-[:INSTANCE_OF]->(part:Component)
OPTIONAL MATCH (node)<-[:ANNOTATES]-(said:Annotation)
WITH part.id AS id, circuit.task AS slug, one, node.role AS role, said.role AS later
ORDER BY id, slug, role, later
WITH id, slug, count(DISTINCT one) AS n_circuits, collect(DISTINCT role) AS roles,
     collect(DISTINCT later) AS said
ORDER BY id, slug
WITH id, count(*) AS n_tasks, sum(n_circuits) AS n_circuits,
     collect({task: slug, n_circuits: n_circuits}) AS tasks,
     collect(roles + [role IN said WHERE NOT role IN roles]) AS roles
MATCH (component:Component {id: id})
RETURN id AS component, component.kind AS kind, component.layer AS layer, n_tasks, n_circuits, tasks,
       reduce(known = [], some IN roles | known + [role IN some WHERE NOT role IN known]) AS roles
ORDER BY n_tasks DESC, n_circuits DESC, component
