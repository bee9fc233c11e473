// where-used
// Active circuits that use a component, with its effect in each.
//
// param component: component -- Component with its model, such as gpt2/a9.h6.
// returns circuit: string -- Circuit's id.
// returns task: string -- Task it was found on.
// returns method: string -- Method that found it.
// returns effect: number? -- Effect of the component; positive helps if sign is helps-positive.
// returns sign: string -- Meaning of the sign of the effect: helps-positive, unsigned, unknown.
// returns rank: integer? -- Rank among the circuit's nodes, 1 for the strongest.
// returns role: string? -- Role it is known for in the circuit itself.
// returns annotated: list[string] -- Roles that somebody said later (annotations).
// returns density: number? -- Share of it that the circuit keeps, 0 to 1; null where unknown.
// returns position: string? -- Token position it is bound to; null for all of them.
// returns n_in: integer -- Edges of the circuit that enter it.
// returns n_out: integer -- Edges of the circuit that leave it.
MATCH (:Component {id: $component})<-[:INSTANCE_OF]-(node:Node)<-[:HAS_NODE]-(circuit:Circuit)
WHERE circuit.state = 'active'
OPTIONAL MATCH (node)<-[incoming:EDGE]-(:Node)
WITH circuit, node, count(incoming) AS n_in
OPTIONAL MATCH (node)-[outgoing:EDGE]->(:Node)
WITH circuit, node, n_in, count(outgoing) AS n_out
OPTIONAL MATCH (node)<-[:ANNOTATES]-(said:Annotation)
WITH circuit, node, n_in, n_out, said.role AS later
ORDER BY circuit.id, node.id, later
WITH circuit, node, n_in, n_out, collect(DISTINCT later) AS annotated
RETURN circuit.id AS circuit, circuit.task AS task, circuit.method AS method,
       node.effect AS effect, circuit.sign AS sign, node.rank AS rank, node.role AS role, annotated,
       node.density AS density, node.position AS position, n_in, n_out
ORDER BY task, circuit, position IS NOT NULL, position
