// edits-touching
// Edits that targeted a circuit, or modified a component of it.
//
// param circuit: circuit -- Circuit that may have been changed.
// returns edit: string -- Edit's id.
// returns editor: string -- Method of the edit.
// returns restriction: string? -- What the edit was restricted to.
// returns targeted: boolean -- Whether it targeted this circuit.
// returns components: list[string] -- Components of the circuit that it modified.
// returns n_components: integer -- Number of these components.
// returns n_modified: integer -- Number of all components that it modified.
// returns n_outcomes: integer -- Number of recorded measurements of its effect.
MATCH (edit:Edit)
OPTIONAL MATCH (edit)-[aim:TARGETS]->(:Circuit {id: $circuit})
WITH edit, count(aim) AS n_aims
OPTIONAL MATCH (edit)-[:MODIFIES]->(component:Component)
               <-[:INSTANCE_OF]-(:Node)<-[:HAS_NODE]-(:Circuit {id: $circuit})
WITH DISTINCT edit, n_aims > 0 AS targeted, component.id AS component
ORDER BY component
WITH edit, targeted, collect(component) AS components
WHERE targeted OR size(components) > 0
OPTIONAL MATCH (edit)-[:MODIFIES]->(modified:Component)
WITH edit, targeted, components, count(modified) AS n_modified
OPTIONAL MATCH (edit)-[:MEASURED]->(outcome:Outcome)
WITH edit, targeted, components, n_modified, count(outcome) AS n_outcomes
RETURN edit.id AS edit, edit.editor AS editor, edit.restriction AS restriction, targeted,
       components, size(components) AS n_components, n_modified, n_outcomes
ORDER BY targeted DESC, n_components DESC, edit
