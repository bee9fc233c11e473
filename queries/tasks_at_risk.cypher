// tasks-at-risk
// Tasks whose active circuits contain components that an edit modified, with how much of them lies
// there and what was measured, where it was.
//
// param edit: edit -- Edit whose reach is asked for.
// returns task: string -- Task that may have changed.
// returns n_components: integer -- How many modified components its circuits contain.
// returns components: list[string] -- Which.
// returns n_circuits: integer -- How many of its circuits contain one.
// returns circuits: list[string] -- Ids of these circuits.
// returns n_connections: integer -- How many connections of these circuits begin or end there.
// returns largest_effect: number? -- Largest size of an effect of a modified component.
// returns effect: number? -- Sum of the effects of the modified components, mean over circuits; null
//   where none has signed effects.
// returns outcomes: list[map] -- What was measured on the task after the edit: metric, protocol,
//   before, after.
MATCH (edit:Edit {id: $edit})-[:MODIFIES]->(:Component)
      <-[:INSTANCE_OF]-(touched:Node)<-[:HAS_NODE]-(user:Circuit)
WHERE user.state = 'active'
OPTIONAL MATCH (touched)-[edge:EDGE]-(:Node)
// The embedded engine still holds what an aggregation drops: names before and after it differ.
WITH edit, user.task AS task, count(DISTINCT edge.connection) AS n_connections
MATCH (edit)-[:MODIFIES]->(component:Component)
      <-[:INSTANCE_OF]-(node:Node)<-[:HAS_NODE]-(circuit:Circuit)
WHERE circuit.state = 'active' AND circuit.task = task
WITH edit, task, n_connections, component, node, circuit
ORDER BY task, component.id, circuit.id, node.id
WITH edit, task, n_connections,
     collect(DISTINCT component.id) AS components,
     collect(DISTINCT circuit.id) AS circuits,
     max(abs(node.effect)) AS largest_effect,
     collect(CASE WHEN circuit.sign = 'helps-positive' THEN node.effect END) AS effects,
     count(DISTINCT CASE WHEN circuit.sign = 'helps-positive' AND node.effect IS NOT NULL
                         THEN circuit.id END) AS n_signed
OPTIONAL MATCH (edit)-[:MEASURED]->(outcome:Outcome)-[:ON_TASK]->(:Task {id: task})
WITH task, n_connections, components, circuits, largest_effect, effects, n_signed, outcome
ORDER BY outcome.metric, outcome.protocol, outcome.id
WITH task, n_connections, components, circuits, largest_effect, effects, n_signed,
     collect(CASE WHEN outcome IS NOT NULL THEN {
       metric: outcome.metric, protocol: outcome.protocol,
       before: outcome.before, after: outcome.after
     } END) AS outcomes
RETURN task, size(components) AS n_components, components, size(circuits) AS n_circuits, circuits,
       n_connections, largest_effect,
       CASE WHEN n_signed > 0
            THEN reduce(total = 0.0, e IN effects | total + e) / n_signed END AS effect,
       outcomes
ORDER BY n_components DESC, n_connections DESC, task
