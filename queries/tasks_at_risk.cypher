// tasks-at-risk
// Tasks whose active circuits contain components that an edit modified, with the size of the
// affected part and the measurements, if any.
//
// param edit: edit -- The edit.
// returns task: string -- Task that may have changed.
// returns n_components: integer -- Number of modified components in its circuits.
// returns components: list[string] -- These components.
// returns n_circuits: integer -- Number of its circuits that contain a modified component.
// returns circuits: list[string] -- Ids of these circuits.
// returns n_connections: integer -- Number of connections of these circuits that begin or end there.
// returns largest_effect: number? -- Largest absolute effect of a modified component.
// returns effect: number? -- Sum of the effects of the modified components, mean over circuits; null
//   where none has signed effects.
// returns outcomes: list[map] -- Measurements on the task after the edit: metric, protocol, before,
//   after.
MATCH (edit:Edit {id: $edit})-[:MODIFIES]->(:Component)
      <-[:INSTANCE_OF]-(touched:Node)<-[:HAS_NODE]-(user:Circuit)
WHERE user.state = 'active'
OPTIONAL MATCH (touched)-[edge:EDGE]-(:Node)
// The embedded engine keeps names that an aggregation drops, so names before and after it differ.
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
