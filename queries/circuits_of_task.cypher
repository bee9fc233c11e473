// circuits-of-task
// Active circuits of a task, the most faithful first.
//
// param task: task -- Task's slug.
// param model: model = null -- Only circuits of this model.
// param method: string = null -- Only circuits found by this method.
// returns circuit: string -- Circuit's id.
// returns title: string -- Its title; empty if it has none.
// returns model: string -- Its model.
// returns method: string -- Method that found it.
// returns level: string -- What its parts are: node, edge, neuron, ...
// returns metric: string? -- Metric its effects change.
// returns ablation: string? -- What replaced a component's activation.
// returns sign: string -- Meaning of the sign of its effects: helps-positive, unsigned, unknown.
// returns kv_heads: string? -- Key/value heads: grouped, or per-query-head.
// returns prompt_set: string? -- Prompts it was found on.
// returns n_nodes: integer -- Number of nodes.
// returns n_edges: integer -- Number of edges.
// returns n_selected: integer? -- Number of edges or nodes that its rule selected, before dangling ones
//   were removed.
// returns faithfulness: number? -- Latest faithfulness on its own task.
// returns recorded_at: string -- When it was recorded, ISO 8601, UTC.
MATCH (task:Task {id: $task})<-[:FOR_TASK]-(circuit:Circuit)
WHERE circuit.state = 'active'
  AND ($model IS NULL OR circuit.model = $model)
  AND ($method IS NULL OR circuit.method = $method)
RETURN circuit.id AS circuit, circuit.title AS title, circuit.model AS model,
       circuit.method AS method, circuit.level AS level, circuit.metric AS metric,
       circuit.ablation AS ablation, circuit.sign AS sign, circuit.kv_heads AS kv_heads,
       circuit.prompt_set AS prompt_set, circuit.n_nodes AS n_nodes, circuit.n_edges AS n_edges,
       circuit.n_selected AS n_selected, circuit.faithfulness AS faithfulness,
       circuit.recorded_at AS recorded_at
ORDER BY faithfulness IS NULL, faithfulness DESC, circuit
