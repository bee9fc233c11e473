// tasks-using-components
// Which tasks use each component, of some circuits: a task uses what any of its circuits uses.
//
// param circuits: list[circuit] -- Circuits that stand for their tasks.
// returns component: string -- Component with its model, such as gpt2/a9.h6.
// returns kind: string -- Sort of component: head, kv_head, mlp, ...
// returns layer: integer? -- Block it lies in; null for input and logits.
// returns n_tasks: integer -- How many tasks use it.
// returns n_circuits: integer -- How many of the circuits use it.
// returns tasks: list[map] -- One map a task, by slug: task, n_circuits.
// returns roles: list[string] -- Roles it is known for in these circuits.
UNWIND $circuits AS one
MATCH (circuit:Circuit {id: one})-[:HAS_NODE]->(node:Node)-[:INSTANCE_OF]->(part:Component)
WITH part.id AS id, circuit.task AS slug, one, node.role AS role
ORDER BY id, slug, role
WITH id, slug, count(DISTINCT one) AS n_circuits, collect(DISTINCT role) AS roles
ORDER BY id, slug
WITH id, count(*) AS n_tasks, sum(n_circuits) AS n_circuits,
     collect({task: slug, n_circuits: n_circuits}) AS tasks, collect(roles) AS roles
MATCH (component:Component {id: id})
RETURN id AS component, component.kind AS kind, component.layer AS layer, n_tasks, n_circuits, tasks,
       reduce(known = [], some IN roles | known + [role IN some WHERE NOT role IN known]) AS roles
ORDER BY n_tasks DESC, n_circuits DESC, component
