// shared-components
// Components that at least min_tasks of the given tasks use, and their effects in each. A task uses
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
// returns component: string -- Component with its model, such as gpt2/a9.h6.
// returns kind: string -- Kind of component: head, kv_head, mlp, ...
// returns layer: integer? -- Block it is in; null for input and logits.
// returns n_tasks: integer -- Number of the tasks that use it.
// returns n_circuits: integer -- Number of their circuits that use it.
// returns tasks: list[map] -- One map a task, by slug: task, n_circuits, effect (mean over circuits;
//   null where none has signed effects) and magnitude (the same without signs).
// returns roles: list[string] -- Roles it is known for in these circuits: their own, and annotations.
// Nodes of one component at several positions are summed within their circuit.
UNWIND $tasks AS slug
MATCH (:Task {id: slug})<-[:FOR_TASK]-(circuit:Circuit)
WHERE (circuit.id IN $circuits OR ($circuits IS NULL AND circuit.state = 'active'))
  AND ($model IS NULL OR circuit.model = $model)
  AND ($method IS NULL OR circuit.method = $method)
WITH slug, circuit
ORDER BY slug, circuit.id
MATCH (circuit)-[:HAS_NODE]->(node:Node)-[:INSTANCE_OF]->(part:Component)
WITH part.id AS id, slug, count(DISTINCT circuit.id) AS n_circuits,
     count(DISTINCT CASE WHEN node.effect IS NOT NULL THEN circuit.id END) AS n_sized,
     count(DISTINCT CASE WHEN node.effect IS NOT NULL AND circuit.sign = 'helps-positive'
                         THEN circuit.id END) AS n_signed,
     collect(abs(node.effect)) AS sizes,
     collect(CASE WHEN circuit.sign = 'helps-positive' THEN node.effect END) AS effects,
     collect(DISTINCT node.role) AS roles
ORDER BY id, slug
WITH id, count(slug) AS n_tasks, sum(n_circuits) AS n_circuits, collect(roles) AS roles,
     collect({
       task: slug,
       n_circuits: n_circuits,
       effect: CASE WHEN n_signed > 0
                    THEN reduce(total = 0.0, e IN effects | total + e) / n_signed END,
       magnitude: CASE WHEN n_sized > 0
                       THEN reduce(total = 0.0, e IN sizes | total + e) / n_sized END
     }) AS tasks
WHERE n_tasks >= coalesce($min_tasks, size($tasks)) AND n_tasks <= coalesce($max_tasks, n_tasks)
WITH collect({id: id, n_tasks: n_tasks, n_circuits: n_circuits, roles: roles, tasks: tasks}) AS found
// Annotations are few: read once for all components, and not at each node, which takes several times
// as long.
CALL {
  UNWIND $tasks AS slug
  MATCH (:Task {id: slug})<-[:FOR_TASK]-(circuit:Circuit)<-[:OF]-(later:Annotation)
  WHERE (circuit.id IN $circuits OR ($circuits IS NULL AND circuit.state = 'active'))
    AND ($model IS NULL OR circuit.model = $model)
    AND ($method IS NULL OR circuit.method = $method)
  MATCH (later)-[:ANNOTATES]->(:Node)-[:INSTANCE_OF]->(part:Component)
  WITH DISTINCT part.id AS id, later.role AS role
  ORDER BY id, role
  RETURN collect({id: id, role: role}) AS said
}
UNWIND found AS part
MATCH (component:Component {id: part.id})
RETURN component.model AS model, component.id AS component, component.kind AS kind,
       component.layer AS layer, part.n_tasks AS n_tasks, part.n_circuits AS n_circuits,
       part.tasks AS tasks,
       reduce(
         known = [],
         some IN part.roles + [[one IN said WHERE one.id = part.id | one.role]]
         | known + [role IN some WHERE NOT role IN known]
       ) AS roles
ORDER BY model, n_tasks DESC, n_circuits DESC, component
