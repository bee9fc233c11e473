// edits-of-components
// Edits that modified one of the given components, regardless of the circuits they targeted.
//
// param components: list[component] -- Components with their model, such as gpt2/m9.
// returns edit: string -- Edit's id.
// returns editor: string -- Method of the edit.
// returns restriction: string? -- What the edit was restricted to.
// returns components: list[string] -- The given components that it modified.
// returns n_modified: integer -- Number of all components that it modified.
// returns n_outcomes: integer -- Number of recorded measurements of its effect.
// returns tasks: list[string] -- Tasks that were measured.
UNWIND $components AS one
MATCH (:Component {id: one})<-[:MODIFIES]-(change:Edit)
WITH change.id AS id, one
ORDER BY id, one
WITH id, collect(DISTINCT one) AS components
MATCH (edit:Edit {id: id})
OPTIONAL MATCH (edit)-[:MODIFIES]->(modified:Component)
WITH edit, components, count(modified) AS n_modified
OPTIONAL MATCH (edit)-[:MEASURED]->(outcome:Outcome)
WITH edit, components, n_modified, outcome
ORDER BY edit.id, outcome.task, outcome.id
WITH edit, components, n_modified, count(outcome) AS n_outcomes,
     collect(DISTINCT outcome.task) AS tasks
RETURN edit.id AS edit, edit.editor AS editor, edit.restriction AS restriction, components,
       n_modified, n_outcomes, tasks
ORDER BY size(components) DESC, edit
