// component-frequency
// How many of some circuits use each component, and what it does in them, positions folded away: what
// is found again on other prompts, or by other methods. For circuits of every level.
//
// param circuits: list[circuit] -- Circuits to count over.
// returns component: string -- Component with its model, such as gpt2/a9.h6.
// returns kind: string -- Kind of component: head, kv_head, mlp, ...
// returns layer: integer? -- Block it is in; null for input and logits.
// returns n_circuits: integer -- How many of the circuits use it.
// returns share: number -- Share of the circuits that use it, 0 to 1.
// returns effect: number? -- Mean effect over those that give one, with a sign; positive helps.
// returns smallest: number? -- Smallest signed effect.
// returns largest: number? -- Largest signed effect.
// returns n_signed: integer -- Number of circuits that give its effect with a sign.
// returns n_positive: integer -- Number of these circuits in which it helps.
// returns circuits: list[string] -- Ids of the circuits that use it.
UNWIND $circuits AS one
MATCH (found:Circuit {id: one})-[:HAS_NODE]->(node:Node)-[:INSTANCE_OF]->(part:Component)
WITH one, part.id AS id, node.position AS position,
     CASE WHEN found.sign = 'helps-positive' THEN node.effect END AS signed
ORDER BY id, one, position
WITH id, one, collect(signed) AS parts
WITH id, one,
     CASE WHEN size(parts) > 0 THEN reduce(total = 0.0, e IN parts | total + e) END AS effect
ORDER BY id, one
WITH id, collect(one) AS circuits, collect(effect) AS effects, min(effect) AS smallest,
     max(effect) AS largest
MATCH (component:Component {id: id})
RETURN id AS component, component.kind AS kind, component.layer AS layer,
       size(circuits) AS n_circuits, toFloat(size(circuits)) / size($circuits) AS share,
       CASE WHEN size(effects) > 0
            THEN reduce(total = 0.0, e IN effects | total + e) / size(effects) END AS effect,
       smallest, largest, size(effects) AS n_signed,
       size([e IN effects WHERE e > 0]) AS n_positive, circuits
ORDER BY n_circuits DESC, component
