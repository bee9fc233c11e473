// circuit-differences-of-components
// Components of either of two circuits, with their effects in each, summed over positions.
//
// param a: circuit -- One circuit.
// param b: circuit -- The other.
// returns component: string -- Component with its model.
// returns kind: string -- Kind of component: head, kv_head, mlp, ...
// returns layer: integer? -- Block it is in; null for input and logits.
// returns in_a: boolean -- Whether a has it.
// returns in_b: boolean -- Whether b has it.
// returns effect_a: number? -- Effect in a; positive helps if the circuit's sign is helps-positive.
// returns effect_b: number? -- Effect in b.
// returns rank_a: integer? -- Best rank in a, 1 for the strongest.
// returns rank_b: integer? -- Best rank in b.
UNWIND CASE WHEN $a = $b THEN [$a] ELSE [$a, $b] END AS one
MATCH (:Circuit {id: one})-[:HAS_NODE]->(node:Node)-[:INSTANCE_OF]->(part:Component)
WITH part.id AS id, one, node.id AS key, node.effect AS effect, node.rank AS rank
ORDER BY id, one, key
WITH id, collect(one) AS users,
     collect(CASE WHEN one = $a THEN effect END) AS effects_a,
     collect(CASE WHEN one = $b THEN effect END) AS effects_b,
     min(CASE WHEN one = $a THEN rank END) AS rank_a,
     min(CASE WHEN one = $b THEN rank END) AS rank_b
MATCH (component:Component {id: id})
RETURN id AS component, component.kind AS kind, component.layer AS layer,
       $a IN users AS in_a, $b IN users AS in_b,
       CASE WHEN size(effects_a) > 0
            THEN reduce(total = 0.0, e IN effects_a | total + e) END AS effect_a,
       CASE WHEN size(effects_b) > 0
            THEN reduce(total = 0.0, e IN effects_b | total + e) END AS effect_b,
       rank_a, rank_b
ORDER BY layer IS NOT NULL, layer, component
