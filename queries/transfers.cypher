// transfers
// Faithfulness of circuits, and of random circuits like them, on their own task and on others.
//
// param circuits: list[circuit] -- Circuits that were measured.
// returns circuit: string -- Circuit's id.
// returns found_on: string -- Task it was found on.
// returns task: string -- Task it was measured on.
// returns measure: string -- faithfulness, from 0 (everything ablated) to 1 (the whole model);
//   random_faithfulness, the median of random circuits; or F, percent of the model's metric.
// returns value: number -- The measured value.
// returns n_prompts: integer? -- Prompts it was measured on.
// returns prompt_set: string? -- Id of these prompts.
// returns ablation: string? -- What replaced the activations outside the circuit.
UNWIND $circuits AS one
MATCH (evaluation:Evaluation)-[:OF]->(circuit:Circuit {id: one})
WHERE evaluation.measure IN ['faithfulness', 'random_faithfulness', 'F']
RETURN circuit.id AS circuit, circuit.task AS found_on, evaluation.task AS task,
       evaluation.measure AS measure, evaluation.value AS value,
       evaluation.n_prompts AS n_prompts, evaluation.prompt_set AS prompt_set,
       evaluation.ablation AS ablation
ORDER BY found_on, circuit, task, measure, prompt_set, value
